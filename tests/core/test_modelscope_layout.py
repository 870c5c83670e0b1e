"""The `modelscope` layout against diffusers' UNet3DConditionModel: zero padding, stem, norms over the clip."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import UNet3DConditionModel
from einops import rearrange
from torch import Tensor

from devtools.check import tiny
from microcinema_core.config import TEMPORAL_LAYOUTS, AppearNetConfig, UNetConfig
from microcinema_core.files.checkpoint import load_strict
from microcinema_core.files.stable_diffusion import from_diffusers
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.unet import UNet3D

FRAMES = 5
CONFIG = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2, 2, 2),
    num_res_blocks=1,
    context_dim=24,
    **TEMPORAL_LAYOUTS["modelscope"],
)


def oracle(in_channels: int = 4) -> UNet3DConditionModel:
    net = UNet3DConditionModel(
        in_channels=in_channels,
        block_out_channels=(64, 128, 128, 128),
        layers_per_block=1,
        cross_attention_dim=24,
    )
    net.load_state_dict(tiny.random_weights(net, 1))
    return net.eval()


def ldm_keys(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the oracle's tensors under our keys, its convolutions over frames squeezed to (3, 1)."""
    spatial = {key: value for key, value in tensors.items() if not re.search("temp_|transformer_in", key)}
    out = from_diffusers(spatial)
    for key, value in tensors.items():
        if key.startswith("transformer_in."):
            out[f"conv_in_temporal.{inner(key.removeprefix('transformer_in.'))}"] = value
        elif match := re.fullmatch(
            r"(down_blocks|up_blocks|mid_block)\.(?:(\d)\.)?temp_(convs|attentions)\.(\d)\.(.+)", key
        ):
            side, i, kind, j, rest = match.groups()
            layer = int(kind == "attentions")
            if side == "mid_block":
                place = f"middle_block.{layer or 2 * int(j)}"
            elif side == "down_blocks":
                place = f"input_blocks.{2 * int(i) + int(j) + 1}.{layer}"
            else:
                place = f"output_blocks.{2 * int(i) + int(j)}.{layer}"
            if kind == "convs":
                number, position, end = re.fullmatch(r"conv(\d)\.(\d)\.(.+)", rest).groups()
                rest = f"{'norms' if position == '0' else 'convs'}.{int(number) - 1}.{end}"
            out[f"{place}.temporal.{inner(rest)}"] = value.squeeze(-1) if value.ndim == 5 else value
    return out


def inner(rest: str) -> str:
    rest = rest.removeprefix("transformer_blocks.0.").replace("norm3.", "norms.2.")
    for k in (1, 2):
        rest = rest.replace(f"attn{k}.", f"attns.{k - 1}.").replace(f"norm{k}.", f"norms.{k - 1}.")
    return rest


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2 * FRAMES, 4, 16, 8, generator=generator)
    x[3] *= 5
    return x, torch.tensor([701.0, 50.0]), torch.randn(2, 7, 24, generator=generator)


@torch.no_grad()
def run_oracle(net: UNet3DConditionModel, x: Tensor) -> Tensor:
    _, t, text = inputs()
    video = rearrange(x, "(b f) c h w -> b c f h w", f=FRAMES)
    return rearrange(net(video, t, text).sample, "b c f h w -> (b f) c h w")


@torch.no_grad()
@pytest.mark.parametrize("concat", [False, True])
def test_the_layout_is_modelscopes(concat: bool) -> None:
    """With a wider first convolution, AppearNet's concat is that convolution's further channels."""
    theirs = oracle(8 if concat else 4)
    state = ldm_keys(dict(theirs.state_dict()))
    wide = state["input_blocks.0.0.weight"]
    state["input_blocks.0.0.weight"] = wide[:, :4]
    net = UNet3D(CONFIG).eval()
    load_strict(net, state, "the U-Net")
    x, t, text = inputs()
    z_c = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    injection = None
    if concat:
        appearnet = AppearNet(AppearNetConfig(CONFIG, injection="concat"))
        load_strict(appearnet, {"concat.weight": wide[:, 4:], "concat.bias": torch.zeros(64)}, "AppearNet")
        injection = appearnet.inject([z_c], frames=FRAMES)
    each = text.repeat_interleave(FRAMES, 0)
    ours = net(x, t.repeat_interleave(FRAMES), each, frames=FRAMES, injection=injection)
    expected = run_oracle(theirs, torch.cat([x, z_c], 1) if concat else x)
    assert float((ours - expected).abs().max() / expected.abs().max()) < 2e-5


def test_appearnets_encoder_repeats_edge_frames() -> None:
    """So that one frame stands for equal ones; the U-Net itself pads with zeros."""
    config = AppearNetConfig(CONFIG)
    assert config.encoder.temporal_padding == "edge" and config.equal_frames_stay_equal
    net = AppearNet(config).eval()
    net.load_state_dict(tiny.random_weights(net, 4))
    z_c = torch.randn(1, 4, 16, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        one = net.features(z_c, torch.zeros(1), None, frames=1)
        many = net.features(z_c.repeat(FRAMES, 1, 1, 1), torch.zeros(FRAMES), None, frames=FRAMES)
    for single, several in zip(one, many, strict=True):
        torch.testing.assert_close(several, single.expand_as(several), rtol=1e-4, atol=1e-4)
