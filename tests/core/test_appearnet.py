"""AppearNet: no effect at initialisation, the one-frame shortcut is exact, and strength scales the injection."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from microcinema_core.config import INJECTIONS, AppearNetConfig
from microcinema_core.networks.appearnet import AppearNet, adapt_for_tsr, interpolated_appearance
from microcinema_core.networks.layers import per_frame
from microcinema_core.networks.unet import UNet3D
from mini.stages.image import MINI

FRAMES = 5
CONFIG = MINI.inflated()


def shaken(module: nn.Module) -> nn.Module:
    """Move every parameter away from zero, so that no zero-initialised projection hides an error."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return module.eval()


def pair(**fields: object) -> tuple[UNet3D, AppearNet]:
    torch.manual_seed(0)
    unet = UNet3D(CONFIG)
    return unet, AppearNet(AppearNetConfig(CONFIG, hidden=16, **fields))  # type: ignore[arg-type]


def inputs(clips: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    n = clips * FRAMES
    x, z_c = torch.randn(n, 8, 8, 8, generator=g), torch.randn(clips, 8, 8, 8, generator=g)
    return x, z_c, torch.full((n,), 400.0), torch.randn(n, 6, 128, generator=g)


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_injection_is_nothing_at_birth_and_something_once_shaken(injection: str) -> None:
    unet, net = pair(injection=injection)
    x, z_c, t, context = inputs()
    alone = unet(x, t, context, frames=FRAMES)
    features = net.features(z_c, t[:2], context[:2], frames=1)
    assert torch.equal(unet(x, t, context, frames=FRAMES, injection=net.inject(features)), alone)
    shaken(net)
    features = net.features(z_c, t[:2], context[:2], frames=1)
    moved = unet(x, t, context, frames=FRAMES, injection=net.inject(features))
    assert (moved - alone).abs().max() > 1e-3
    off = unet(x, t, context, frames=FRAMES, injection=net.inject(features, strength=0.0))
    assert torch.equal(off, alone), "strength 0 is the U-Net alone"


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_one_frame_serves_all_equal_frames(injection: str) -> None:
    unet, net = pair(injection=injection)
    shaken(unet)
    shaken(net)
    x, z_c, t, context = inputs()
    one = net.inject(net.features(z_c, t[:2], context[:2], frames=1))
    each = net.features(per_frame(z_c, FRAMES), t, per_frame(context[:2], FRAMES), frames=FRAMES)
    every = net.inject(each, frames=FRAMES)
    assert_close(
        unet(x, t, context, frames=FRAMES, injection=one),
        unet(x, t, context, frames=FRAMES, injection=every),
        rtol=2e-5,
        atol=2e-5,
    )


@pytest.mark.parametrize("differ", ["frames", "prompts"])
@torch.no_grad()
def test_one_frame_does_not_serve_frames_that_differ(differ: str) -> None:
    _, net = pair(text_conditioned=True)
    shaken(net)
    _, z_c, t, context = inputs(clips=1)
    frames = per_frame(z_c, FRAMES)
    texts = context[:1].expand(FRAMES, -1, -1)
    if differ == "frames":
        frames = interpolated_appearance(z_c, z_c + 1, FRAMES)
    else:
        texts = context
    one = net.features(frames[:1], t[:1], texts[:1], frames=1)[-1]
    every = net.features(frames, t, texts, frames=FRAMES)[-1]
    assert (every - one).abs().max() > 1e-2


@torch.no_grad()
def test_features_ignore_what_they_are_not_conditioned_on() -> None:
    _, net = pair()
    _, z_c, t, context = inputs()
    assert net.per_clip
    a = net.features(z_c, t[:2], context[:2], frames=1)
    b = net.features(z_c, t[:2] * 0 + 7, None, frames=1)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@torch.no_grad()
def test_strength_is_set_for_each_video() -> None:
    unet, net = pair()
    shaken(net)
    x, z_c, t, context = inputs()
    features = net.features(z_c, t[:2], None, frames=1)
    both = unet(
        x,
        t,
        context,
        frames=FRAMES,
        injection=net.inject(features, strength=torch.tensor([0.0, 1.0])[:, None, None, None]),
    )
    off = unet(x, t, context, frames=FRAMES)
    on = unet(x, t, context, frames=FRAMES, injection=net.inject(features))
    assert_close(both[:FRAMES], off[:FRAMES])
    assert_close(both[FRAMES:], on[FRAMES:])


def test_spade_modulates_every_norm_at_its_own_width_and_resolution() -> None:
    unet, net = pair()
    assert len(net.spade_targets) == 2 * sum(
        1 for block in (*unet.input_blocks, unet.middle_block, *unet.output_blocks) for _ in block.resblocks()
    )
    assert len(pair(spade_norms="out")[1].spade_targets) == len(net.spade_targets) // 2


def test_line_between_ends_keeps_them_bit_for_bit() -> None:
    g = torch.Generator().manual_seed(0)
    first, last = torch.randn(2, 3, 4, 4, 4, generator=g)
    line = interpolated_appearance(first, last).unflatten(0, (3, 5))
    assert torch.equal(line[:, 0], first) and torch.equal(line[:, 4], last)
    assert_close(line[:, 1], 0.75 * first + 0.25 * last)


@torch.no_grad()
def test_tsr_starts_where_the_base_model_stood() -> None:
    _, net = pair()
    shaken(net)
    _, z_c, t, _ = inputs()
    frames = per_frame(z_c, FRAMES)
    before = net.features(frames, t, None, frames=FRAMES)
    adapt_for_tsr(net, torch.Generator().manual_seed(0))
    after = net.features(frames, t, None, frames=FRAMES)
    for x, y in zip(before, after, strict=True):
        assert_close(x, y, rtol=1e-4, atol=1e-4)
    taps = net.encoder.conv_in_temporal.conv.weight
    assert not taps[:, :, 0].any() and not taps[:, :, 2].any()


def test_config_survives_json() -> None:
    config = AppearNetConfig(replace(CONFIG, injected_norm="clip"), injection="add_dec", hidden=7)
    assert AppearNetConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="no field colour"):
        AppearNetConfig.from_dict({**config.to_dict(), "colour": 1})
    with pytest.raises(ValueError, match="expected one of spade"):
        AppearNetConfig(CONFIG, injection="paint")  # type: ignore[arg-type]


def test_one_branch_s_features_serve_all_branches() -> None:
    """Also, the operations that run in place without gradients give the same bits."""
    unet, net = pair()
    shaken(unet)
    shaken(net)
    x, z_c, t, context = inputs()
    each = net.features(per_frame(z_c[:1], FRAMES), t[:FRAMES], None, frames=FRAMES)
    shared = net.inject(each, frames=FRAMES)
    given = [feature.clone() for feature in shared.encoder.values()]
    with_gradients = unet(x, t, context, frames=FRAMES, injection=shared)
    with torch.no_grad():
        together = unet(x, t, context, frames=FRAMES, injection=shared)
        alone = [
            unet(x[part], t[part], context[part], frames=FRAMES, injection=shared)
            for part in (slice(0, FRAMES), slice(FRAMES, None))
        ]
    assert torch.equal(together, with_gradients)
    assert_close(together, torch.cat(alone))
    assert all(torch.equal(a, b) for a, b in zip(given, shared.encoder.values(), strict=True))
