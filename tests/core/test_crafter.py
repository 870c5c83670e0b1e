"""DynamiCrafter's network against diffusers' UNet3DConditionModel with the authors' additions, written as formulas."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from devtools.check import crafter_files, tiny
from devtools.check.crafter_files import UNET, authors_keys, write_crafter
from microcinema_core.config import ResamplerConfig, UNetConfig
from microcinema_core.diffusion.ddim import ddim_steps
from microcinema_core.diffusion.schedule import NoiseSchedule, denoiser, latent_scales
from microcinema_core.files.checkpoint import load_strict
from microcinema_core.files.crafter import Crafter, read_crafter
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.appearance_input import appearnet_input
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.injection import tokens_of_frames
from microcinema_core.networks.layers import ImageContext, LayerFactory
from microcinema_core.networks.resampler import Resampler
from microcinema_core.networks.unet import UNet3D
from tests.core.test_modelscope_layout import ldm_keys

diffusers = pytest.importorskip("diffusers")

CONTEXT, FPS = 24, 24.0
SMALL = replace(UNET, context_dim=CONTEXT)


def digest(shapes: Mapping[str, Any]) -> str:
    lines = (f"{key} {list(shape)}" for key, shape in sorted(shapes.items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_full_size_keys_and_shapes() -> None:
    """The digests are those of the authors' own networks: UNetModel and Resampler of Doubiiu/DynamiCrafter."""
    config = UNetConfig(**{**crafter_files.LAYOUT, "image_context": 16})
    with torch.device("meta"):
        ours = UNet3D(config).state_dict()
        ours["input_blocks.0.0.weight"] = torch.empty(320, 8, 3, 3)  # with AppearNet's channels
        unet = {key: value.shape for key, value in authors_keys(ours).items()}
        resampler = {
            key: value.shape
            for key, value in Resampler(ResamplerConfig(), LayerFactory()).state_dict().items()
        }
    assert (len(unet), sum(shape.numel() for shape in unet.values())) == (1516, 1_438_854_980)
    assert digest(unet) == "7c755d6db52e5c735cacf6ed4cd4495f023a623851f330140e94a1f869fd3885"
    assert digest(resampler) == "180978e8ef5985f2e6f79926aff387394e8e67b53a3fb9ebde6d233a864f3649"


RENAMED = {
    "0.norm1": "ln0",
    "0.norm2": "ln1",
    "0.to_q": "attn.to_q",
    "0.to_out": "attn.to_out.0",
    "1.0": "ff.0",
    "1.1": "ff.1.net.0.proj",
    "1.3": "ff.1.net.2",
}
"""Names in diffusers' resampler by those in the authors'."""


def test_the_resampler_is_ip_adapters() -> None:
    config = ResamplerConfig(8, 32, 2, 2, 64, in_width=24, out_width=16)
    ours = Resampler(config, LayerFactory()).eval()
    ours.load_state_dict(tiny.random_weights(ours, 3))
    theirs = diffusers.models.embeddings.IPAdapterPlusImageProjection(
        embed_dims=24, output_dims=16, hidden_dims=32, depth=2, dim_head=64, heads=2, num_queries=8
    ).eval()
    state = {}
    for key, value in ours.state_dict().items():
        if key.endswith("to_kv.weight"):
            place = key.replace(".0.to_kv.weight", ".attn.to_{}.weight")
            state |= {place.format(name): half for name, half in zip("kv", value.chunk(2), strict=True)}
            continue
        for old, new in RENAMED.items():
            key = re.sub(rf"^(layers\.\d)\.{old}", rf"\1.{new}", key)
        state[key] = value
    theirs.load_state_dict(state)
    features = torch.randn(3, 11, 24, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        torch.testing.assert_close(ours(features), theirs(features), rtol=1e-5, atol=1e-5)


class WithImage:
    """An attention processor that adds the attention to image tokens, each frame to its own, by the formula."""

    def __init__(self, weights: Mapping[str, Tensor], place: str, tokens: Tensor) -> None:
        self.k, self.v = (weights[f"{place}.attn2.to_{name}_ip.weight"] for name in "kv")
        self.tokens = tokens

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return rearrange(x, "b n (h d) -> b h n d", h=attn.heads)

        def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v

        q = heads(attn.to_q(hidden_states))
        out = attended(q, heads(attn.to_k(encoder_hidden_states)), heads(attn.to_v(encoder_hidden_states)))
        out = out + attended(q, heads(self.tokens @ self.k.T), heads(self.tokens @ self.v.T))
        return attn.to_out[0](rearrange(out, "b h n d -> b n (h d)"))


def oracle(read: Crafter, tokens: Tensor, *, context: int = CONTEXT) -> Any:
    """Return diffusers' network with a file's weights; `tokens` are `(b f) l d`."""
    assert read.appearnet is not None
    net: Any = diffusers.UNet3DConditionModel(
        in_channels=8, block_out_channels=(64, 128, 128, 128), layers_per_block=1, cross_attention_dim=context
    ).eval()
    wide = torch.cat([read.unet["input_blocks.0.0.weight"], read.appearnet["concat.weight"]], dim=1)
    ours = {**read.unet, "input_blocks.0.0.weight": wide}
    # Each of diffusers' keys under ours, found by sending its name through the layout's test.
    names = {key: torch.tensor(float(i)) for i, key in enumerate(net.state_dict())}
    back = {int(value): key for key, value in ldm_keys(names).items()}
    shapes = net.state_dict()
    net.load_state_dict({key: ours[back[i]].reshape(shapes[key].shape) for i, key in enumerate(names)})
    places = {key: back[i] for i, key in enumerate(names)}
    for name, layer in net.named_modules():
        if name.endswith(".attn2") and ".attentions." in name and "temp_" not in name:
            place = places[f"{name}.to_q.weight"].removesuffix(".attn2.to_q.weight")
            layer.set_processor(WithImage(read.unet, place, tokens))
    half = SMALL.model_channels // 2
    angles = FPS * 10000 ** (-torch.arange(half) / half)
    rate = torch.cat([angles.cos(), angles.sin()])
    for layer, act in ((0, nn.functional.silu), (2, nn.Identity())):
        weight, bias = (read.unet[f"fps_embed.{layer}.{end}"] for end in ("weight", "bias"))
        rate = act(weight @ rate + bias)
    net.time_embedding.register_forward_hook(lambda _, __, out: out + rate)
    return net


@torch.no_grad()
@pytest.mark.parametrize("frames", [16, 5])
@pytest.mark.parametrize("use", ["base", "interpolation"])
def test_a_file_runs_as_its_formulas_say(frames: int, use: str, tmp_path: Path) -> None:
    """16 frames share the image tokens out; any other number sees them all."""
    read = read_crafter(write_crafter(tmp_path / "dynamicrafter_512.safetensors", SMALL), use=use)
    assert read.appearnet_config is not None and read.appearnet is not None
    net, appearnet = UNet3D(read.config).eval(), AppearNet(read.appearnet_config).eval()
    load_strict(net, read.unet, "the U-Net")
    load_strict(appearnet, read.appearnet, "the AppearNet")
    generator = torch.Generator().manual_seed(2)
    x, line = (torch.randn(2 * frames, 4, 8, 8, generator=generator) for _ in range(2))
    x[3] *= 5
    t, text = torch.tensor([701.0, 50.0]), torch.randn(2, 7, CONTEXT, generator=generator)
    tokens = appearnet.resampler(torch.randn(2, 9, crafter_files.CLIP_WIDTH, generator=generator))

    seen = appearnet_input(line, [0, frames - 1], read.appearnet_config, frames=frames)
    injection = replace(appearnet.inject([seen], frames=frames), image=ImageContext(tokens))
    ours = net(
        x,
        t.repeat_interleave(frames),
        text.repeat_interleave(frames, 0),
        frames=frames,
        injection=injection,
        fps=FPS,
    )

    per_frame = (
        tokens.reshape(2 * frames, -1, CONTEXT) if frames == 16 else tokens.repeat_interleave(frames, 0)
    )
    given = line if use == "base" else torch.zeros_like(line)
    for frame in (0, frames - 1, frames, 2 * frames - 1):
        given[frame] = line[frame]
    video = rearrange(torch.cat([x, given], dim=1), "(b f) c h w -> b c f h w", f=frames)
    expected = rearrange(oracle(read, per_frame)(video, t, text).sample, "b c f h w -> (b f) c h w")
    assert float((ours - expected).abs().max() / expected.abs().max()) < 2e-5


def test_tokens_of_a_clip() -> None:
    tokens = torch.arange(12.0).reshape(2, 6, 1)
    shared = tokens_of_frames(ImageContext(tokens, 0.5), 3, 2)
    assert shared.tokens.shape == (6, 2, 1) and shared.strength == 0.5
    assert torch.equal(shared.tokens[4], tokens[1, 2:4])
    assert torch.equal(tokens_of_frames(ImageContext(tokens), 4, 2).tokens[5], tokens[1])


def test_strength_scales_what_the_image_adds() -> None:
    net = UNet3D(SMALL).eval()
    net.load_state_dict(tiny.random_weights(net, 3))
    layer = net.get_submodule("input_blocks.1.1.transformer_blocks.0.attn2")
    generator = torch.Generator().manual_seed(1)
    x, text, tokens = (
        torch.randn(2, n, d, generator=generator) for n, d in ((4, 64), (5, CONTEXT), (3, CONTEXT))
    )
    with torch.no_grad():
        none, half, whole = (
            layer(x, text, image=None if strength is None else ImageContext(tokens, strength))
            for strength in (None, 0.5, 1.0)
        )
    torch.testing.assert_close(half - none, 0.5 * (whole - none), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole, none, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(("rescale", "prediction"), [(0.7, "v"), (0.3, "v"), (0.7, "eps")])
def test_dynamic_rescale_is_the_authors_ddim(rescale: float, prediction: Any) -> None:
    """The authors scale the estimate of z_0 from step to step; ours runs in a variable where nothing is scaled."""
    zero = prediction == "v"
    spec = ModelSpec("base", fps=8, frames=16, prediction=prediction, zero_terminal_snr=zero, rescale=rescale)
    schedule = NoiseSchedule.from_spec(spec)
    scales = torch.cat([torch.linspace(1, rescale, 400, dtype=torch.float64), torch.full((600,), rescale)])
    torch.testing.assert_close(latent_scales(rescale), scales)
    steps = torch.tensor([999, 799, 599, 399, 199, 0])
    seen: list[float] = []

    def network(z: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return torch.tanh(z.roll(1, -1) + 0.1) + 0.001 * t.reshape(-1, 1, 1, 1)

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    z, ab = noise, schedule.alpha_bar
    start = ab[999].sqrt(), (1 - ab[999]).sqrt()
    for now, then in pairwise(steps):
        a, b = ab[now].sqrt(), (1 - ab[now]).sqrt()
        out = network(z, now.double().reshape(1))
        eps, z_0 = (a * out + b * z, a * z - b * out) if zero else (out, (z - b * out) / a)
        z_0 = z_0 * scales[then] / scales[now]
        z = ab[then].sqrt() * z_0 + (1 - ab[then]).sqrt() * eps
    theirs = z / (ab[0].sqrt() * scales[0])
    count = len(seen)

    sigmas = ((1 - ab) / ab).sqrt()[steps] / scales[steps]
    x = noise / (start[0] * scales[999])
    *_, ours = ddim_steps(denoiser(network, schedule, prediction), x, sigmas)
    assert seen[count:] == pytest.approx(seen[:count], abs=0.05)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4


def test_specs_survive_their_metadata() -> None:
    spec = ModelSpec("base", fps=8, frames=16, origin="X", rates=(3.0, 2.0, 1.0), rescale=0.7, prediction="v")
    assert ModelSpec.from_metadata(spec.to_metadata()) == spec
    assert [spec.rate("small"), spec.rate(), spec.rate("large")] == [3.0, 2.0, 1.0]
    plain = ModelSpec("base", fps=2, frames=9)
    assert not {"origin", "rates", "rescale"} & {key.split(".")[-1] for key in plain.to_metadata()}
    assert plain.rate() is None and replace(plain, rates=(5.0,)).rate("large") == 5.0
    for rates in ("[1, 2]", '{"a": 1}', "[NaN]", "7"):
        with pytest.raises(ValueError, match="rates"):
            ModelSpec.from_metadata({**spec.to_metadata(), "microcinema.rates": rates})
