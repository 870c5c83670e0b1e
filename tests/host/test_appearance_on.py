"""With AppearNet and the noise prior on: areas, masks, clones, order of execution, ControlNets, LoRAs over time."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from devtools.check import tiny
from devtools.check.conformance.world import call
from microcinema_core.networks.unet import is_temporal

FRAMES, STEPS = 3, 2


@pytest.fixture(scope="module")
def world(comfy_in_process: Path, tmp_path_factory: pytest.TempPathFactory) -> types.SimpleNamespace:
    from microcinema_core import adapter

    folder = tmp_path_factory.mktemp("family")
    tiny.write_family(folder, dtype=torch.float32)
    base = adapter.load_checkpoint(folder / "tiny_base.safetensors")
    return types.SimpleNamespace(adapter=adapter, base=base)


def text(seed: int, **options: Any) -> list[Any]:
    return [[torch.randn(1, 16, tiny.CONTEXT, generator=torch.Generator().manual_seed(seed)), options]]


def centre(seed: int = 5) -> dict[str, Tensor]:
    return {"samples": torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(seed))}


def applied(world: Any, seed: int = 5, **changes: Any) -> Any:
    options = {"lambda_": 0.1, "gamma": 0.05} | changes
    return world.adapter.apply_appearance(world.base.model, world.base.appearnet, centre(seed), **options)


def sample(model: Any, positive: Any = None, latent: Any = None, **changes: Any) -> Tensor:
    import nodes

    settings = {
        "seed": 7,
        "steps": STEPS,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
    } | changes
    empty = {"samples": torch.zeros(FRAMES, 8, 8, 8)}
    with torch.inference_mode():
        return nodes.KSampler().sample(
            model, positive=positive or text(1), negative=text(2), latent_image=latent or empty, **settings
        )[0]["samples"]


def left() -> Tensor:
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1
    return mask


def test_masked_texts_share_the_frame_by_their_masks(world: Any) -> None:
    """After one step, each mask shows the output for its own text; AppearNet and prior apply to both."""
    model = applied(world)
    alone = [sample(model, text(seed), steps=1) for seed in (1, 3)]
    both = [*text(1, mask=left()), *text(3, mask=1 - left())]
    out = sample(model, both, steps=1)
    assert_close(out[..., :4], alone[0][..., :4], rtol=1e-4, atol=1e-4)
    assert_close(out[..., 4:], alone[1][..., 4:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alone[0], alone[1], rtol=1e-2, atol=1e-2)


def test_an_area_sees_its_own_part_of_the_centre_frame(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = applied(world)
    seen: list[Tensor] = []
    inner = type(world.base.model.model)
    original = inner._apply_model

    def watch(self: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(kwargs["microcinema_z_c"].clone())
        assert kwargs["microcinema_z_c"].shape == x.shape
        return original(self, x, t, *args, **kwargs)

    monkeypatch.setattr(inner, "_apply_model", watch)
    positive = [*text(1), *text(3, area=(8, 4, 0, 4), strength=1.0)]
    out = sample(model, positive, steps=1)
    z_c = centre()["samples"]
    widths = {z.shape[-1]: z for z in seen}
    assert set(widths) == {4, 8}
    assert_close(widths[4][:1], z_c[..., 4:])
    assert_close(out[..., :4], sample(model, text(1), steps=1)[..., :4], rtol=1e-4, atol=1e-4)


def test_a_noise_mask_keeps_what_it_keeps(world: Any) -> None:
    given = torch.randn(FRAMES, 8, 8, 8, generator=torch.Generator().manual_seed(9))
    latent = {"samples": given, "noise_mask": left()}
    for sampler in ("euler", "euler_ancestral", "dpmpp_2m_sde"):
        out = sample(applied(world), latent=latent, sampler_name=sampler)
        assert_close(out[..., 5:], given[..., 5:], rtol=1e-4, atol=1e-4)
        assert float((out[..., :3] - given[..., :3]).abs().mean()) > 0.1


def freed(model: Any) -> Any:
    from comfy_extras.nodes_freelunch import FreeU_V2

    return call(FreeU_V2, {"model": model, "b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2})[0]


def with_lora(model: Any) -> Any:
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, spatial_lora(), 1.0, 0.0)[0]


def spatial_lora() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    name = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    return {
        f"{name}.lora_down.weight": torch.randn(4, 64, generator=generator),
        f"{name}.lora_up.weight": torch.randn(64, 4, generator=generator),
    }


def test_clones_in_one_graph_know_nothing_of_each_other(world: Any) -> None:
    """Clones with a stock patch, with a LoRA and another centre frame, and unpatched, in any order, new or reused."""
    makers: list[Callable[[], Any]] = [
        lambda: freed(applied(world)),
        lambda: with_lora(applied(world, seed=6, strength=0.5)),
        lambda: world.base.model,
        lambda: world.adapter.override_prior(applied(world), lambda_=0.0, gamma=0.0),
    ]
    alone = [sample(make()) for make in makers]
    for first in range(len(alone)):
        assert all(not torch.equal(alone[first], other) for other in alone[first + 1 :])
    kept = [make() for make in makers]
    for order in ((3, 2, 1, 0), (1, 0, 1, 2, 3, 0)):
        for index in order:
            assert torch.equal(sample(kept[index]), alone[index]), (order, index)


def test_an_aborted_run_leaves_nothing_behind(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sample(applied(world))
    other = applied(world, seed=6)

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    other.set_model_sampler_post_cfg_function(stop)
    with pytest.raises(KeyboardInterrupt):
        sample(other)
    assert torch.equal(sample(applied(world)), expected)


def control_net(conditioning: Any, hints: Tensor) -> Any:
    """Apply a handmade ControlNet whose residual is the brightness of each frame's hint."""
    import comfy.controlnet

    import nodes

    class Net(comfy.controlnet.ControlBase):
        def get_control(self, x: Tensor, t: Tensor, cond: Any, batched: int, options: Any) -> Any:
            frames = comfy.controlnet.broadcast_image_to(self.cond_hint_original, x.shape[0], batched)
            level = frames.mean(dim=(1, 2, 3)).reshape(-1, 1, 1, 1)
            return {"middle": [level * torch.ones(x.shape[0], 64, 4, 4)], "input": [], "output": []}

        def copy(self) -> Any:
            other = Net()
            self.copy_to(other)
            return other

    return nodes.ControlNetApplyAdvanced().apply_controlnet(
        conditioning, text(2), Net(), hints, 1.0, 0.0, 1.0
    )[0]


def test_hints_follow_the_frames(world: Any) -> None:
    """Temporal layers carry a hint to neighbouring frames; with them at zero it affects its own frame only."""
    still = torch.zeros(FRAMES, 64, 64, 3)
    moved = still.clone()
    moved[1] = 3.0
    net = world.base.model.model.diffusion_model
    over_time = [p for name, p in net.named_parameters() if is_temporal(name)]
    kept = [p.detach().clone() for p in over_time]
    model = applied(world)
    try:
        with torch.no_grad():
            for p in over_time:
                p.zero_()
        first, second = (sample(model, control_net(text(1), hints)) for hints in (still, moved))
    finally:
        with torch.no_grad():
            for p, value in zip(over_time, kept, strict=True):
                p.copy_(value)
    assert_close(first[[0, 2]], second[[0, 2]], rtol=1e-4, atol=1e-4)
    assert float((first[1] - second[1]).abs().max()) > 1e-3
    first, second = (sample(model, control_net(text(1), hints)) for hints in (still, moved))
    assert float((first[0] - second[0]).abs().max()) > 1e-5


@pytest.mark.parametrize("style", ["lora_unet", "diffusion_model"])
def test_loras_of_layers_over_time_load_by_the_hosts_loader(world: Any, tmp_path: Path, style: str) -> None:
    """For temporal attention, and for a LoCon of a temporal convolution, the weights become W + up down."""
    import comfy.sd
    import comfy.utils

    net = world.base.model.model.diffusion_model
    weights = dict(net.named_parameters())
    generator = torch.Generator().manual_seed(8)
    layers = ["middle_block.1.temporal.attn.to_q", "input_blocks.1.0.in_temporal.conv"]
    file, expected = {}, {}
    for layer in layers:
        weight = weights[f"{layer}.weight"]
        down = torch.randn(4, *weight.shape[1:], generator=generator) * 0.1
        up = torch.randn(weight.shape[0], 4, *([1] * (weight.ndim - 2)), generator=generator) * 0.1
        name, ends = f"{style}.{layer}", ("lora_A", "lora_B")
        if style == "lora_unet":
            name, ends = f"lora_unet_{layer.replace('.', '_')}", ("lora_down", "lora_up")
        file |= {f"{name}.{ends[0]}.weight": down, f"{name}.{ends[1]}.weight": up}
        expected[layer] = weight + (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    save_file(file, str(tmp_path / "lora.safetensors"))
    loaded = comfy.utils.load_torch_file(str(tmp_path / "lora.safetensors"))
    model = comfy.sd.load_lora_for_models(applied(world), None, loaded, 1.0, 0.0)[0]
    plain = sample(applied(world))
    kept = {layer: weights[f"{layer}.weight"].detach().clone() for layer in layers}
    by_host = sample(model)
    try:
        with torch.no_grad():
            for layer in layers:
                weights[f"{layer}.weight"].copy_(expected[layer])
        by_hand = sample(applied(world))
    finally:
        with torch.no_grad():
            for layer in layers:
                weights[f"{layer}.weight"].copy_(kept[layer])
    assert_close(by_host, by_hand, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(by_host, plain, rtol=1e-3, atol=1e-3)
