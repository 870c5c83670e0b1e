"""Appearance attention: heads look along their motions, and new layers change nothing until they are trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from microcinema_core.config import AppearNetConfig, UNetConfig
from microcinema_core.networks.appearance_attention import HEADS, ZOOMS, AppearanceAttention
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.injection import Injection
from microcinema_core.networks.layers import LayerFactory, attention, unfused_attention
from microcinema_core.networks.unet import UNet3D
from mini.stages.image import MINI

CONFIG = MINI.inflated(appearance_attention=True)
CHANNELS, FEATURE, SIDE, FRAMES = 64, 8, 16, 9
SHIFTS = [(0, 0), (0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
"""Columns and rows by which the first six heads' picture, of 16 x 16 cells, has moved one frame later."""


def layer_that_shows(head: int, *, sharper: float = 4.0) -> AppearanceAttention:
    """A layer that looks by place alone, and adds what one head sees of channel 0 to the first channel."""
    layer = AppearanceAttention(CHANNELS, FEATURE, LayerFactory())
    width = CHANNELS // HEADS
    with torch.no_grad():
        layer.to_q.weight.zero_()  # type: ignore[operator]
        layer.to_v.weight.zero_()  # type: ignore[operator]
        layer.to_v.weight[head * width, 0] = 1.0  # type: ignore[index]
        layer.to_out.weight[0, head * width] = 1.0  # type: ignore[index]
        layer.motion.bias.view(HEADS, 5)[:, 4] = sharper  # type: ignore[operator]
    return layer


def shown(layer: AppearanceAttention, pictures: Tensor, frames: int = FRAMES, side: int = SIDE) -> Tensor:
    """What the layer adds for pictures `v g k h w` at each frame, `(v f) h w`."""
    still = torch.zeros(len(pictures) * frames, CHANNELS, side, side)
    with torch.no_grad():
        return layer(still, pictures, frames)[:, 0]


def pictures_of(videos: int, given: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(videos, given, FEATURE, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("head", range(len(SHIFTS)))
def test_a_pan_moves_by_a_sixteenth_of_the_picture_a_frame(head: int) -> None:
    pictures = pictures_of(2, seed=head)
    made = shown(layer_that_shows(head), pictures).unflatten(0, (2, FRAMES))
    columns, rows = SHIFTS[head]
    for frame in range(FRAMES):
        moved = pictures[:, 0, 0].roll((rows * (frame - 4), columns * (frame - 4)), (1, 2))
        inside = (..., slice(4, 12), slice(4, 12))
        assert_close(made[:, frame][inside], moved[inside], atol=1e-4, rtol=0)


def test_an_untrained_head_sees_mostly_one_cell() -> None:
    spot = torch.zeros(1, 1, FEATURE, SIDE, SIDE)
    spot[..., 8, 8] = 1.0
    seen = shown(layer_that_shows(0, sharper=0.0), spot)[4]
    assert seen[8, 8] == pytest.approx(0.94, abs=0.01)
    assert seen.sum() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("head", [6, 7])
def test_a_zoom_grows_about_the_middle(head: int) -> None:
    ramp = (torch.arange(SIDE) + 0.5 - SIDE / 2).expand(SIDE, SIDE)
    made = shown(layer_that_shows(head), ramp.expand(1, 1, FEATURE, SIDE, SIDE))
    for frame in range(FRAMES):
        expected = ramp * (1 - (frame - 4) * ZOOMS[head])
        assert (made[frame] - expected)[:, 4:12].abs().max() < 0.51, (
            "the nearest cell is half a cell away at most"
        )
    width = {frame: float(made[frame, 8, 13] - made[frame, 8, 2]) for frame in (0, 8)}
    assert (width[8] < width[0]) == (ZOOMS[head] > 0), "what comes closer changes less from cell to cell"


def test_between_two_given_frames_a_head_goes_as_far_as_between_two_frames_around_one() -> None:
    pictures = pictures_of(1, given=2)
    made = shown(layer_that_shows(2), pictures, frames=5)
    inside = (slice(None), slice(5, 11))
    first, last = pictures[0, 0, 0], pictures[0, 1, 0]
    assert_close(made[0][inside], (first + last.roll(-1, 1))[inside], atol=1e-4, rtol=0)
    assert_close(made[4][inside], (first.roll(1, 1) + last)[inside], atol=1e-4, rtol=0)


def test_activations_of_another_size_see_the_same_places() -> None:
    """A host's patch may shrink the blocks."""
    pictures = pictures_of(1)
    made = shown(layer_that_shows(0), pictures, side=8)
    assert_close(made[4], F.avg_pool2d(pictures[0, :, 0], 2)[0], atol=1e-3, rtol=0)


def test_a_token_s_own_motion_is_added() -> None:
    layer, pictures = layer_that_shows(0), pictures_of(1)
    with torch.no_grad():
        layer.motion.bias.view(HEADS, 5)[0, :2] = torch.tensor([2.0, 0.0])  # type: ignore[operator]
    made = shown(layer, pictures)
    assert_close(made[5][:, :14], pictures[0, 0, 0][:, 2:], atol=1e-4, rtol=0)
    assert_close(made[4], pictures[0, 0, 0], atol=1e-4, rtol=0)


def test_content_tells_places_apart_where_nearness_does_not() -> None:
    """With equal keys everywhere, and with another attention function, nothing changes; keys that match are chosen."""
    torch.manual_seed(0)
    layers = [
        AppearanceAttention(CHANNELS, FEATURE, LayerFactory(attend=a)) for a in (attention, unfused_attention)
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    with torch.no_grad():
        for layer in layers:
            layer.to_out.weight.copy_(torch.eye(CHANNELS))  # type: ignore[operator]
    x, pictures = torch.randn(2 * FRAMES, CHANNELS, SIDE, SIDE), pictures_of(2)
    with torch.no_grad():
        one, other = (layer(x, pictures, FRAMES) for layer in layers)
        assert_close(one, other, atol=1e-4, rtol=1e-4)
        plain = layers[0](x, pictures, FRAMES)
        layers[0].to_q.weight.mul_(30)  # type: ignore[operator]
        assert (layers[0](x, pictures, FRAMES) - plain).abs().max() > 0.1


def video_model(**fields: object) -> tuple[UNet3D, AppearNet]:
    torch.manual_seed(0)
    return UNet3D(CONFIG), AppearNet(AppearNetConfig(CONFIG, hidden=16, **fields))  # type: ignore[arg-type]


def call(unet: UNet3D, injection: Injection | None, clips: int = 2) -> Tensor:
    g = torch.Generator().manual_seed(1)
    x, context = torch.randn(clips * 5, 8, 8, 8, generator=g), torch.randn(clips * 5, 6, 128, generator=g)
    with torch.no_grad():
        return unet(x, torch.full((clips * 5,), 400.0), context, frames=5, injection=injection)


def injections(net: AppearNet, strength: float = 1.0, clips: int = 2) -> Injection:
    z_c = torch.randn(clips, 8, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return net.inject(net.features(z_c, torch.zeros(clips), None, frames=1), strength=strength)


def test_new_layers_change_nothing_until_they_are_trained() -> None:
    unet, net = video_model()
    plain = UNet3D(replace(CONFIG, appearance_attention=False))
    plain.load_state_dict({k: v for k, v in unet.state_dict().items() if ".appearance_attention." not in k})
    assert torch.equal(call(unet, injections(net)), call(plain, injections(net)))
    with torch.no_grad():
        for key, parameter in unet.named_parameters():
            if ".appearance_attention." in key:
                parameter.add_(0.1)
    moved = call(unet, injections(net))
    assert (moved - call(plain, injections(net))).abs().max() > 1e-3
    assert_close(call(unet, injections(net, 0.0)), call(plain, None), atol=1e-6, rtol=1e-5)


def test_guidance_branches_share_the_given_frames() -> None:
    unet, net = video_model()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    shared = Injection(given=injections(net, clips=1).given)
    twice = Injection(given={block: x.repeat(2, 1, 1, 1, 1) for block, x in shared.given.items()})
    assert_close(call(unet, shared), call(unet, twice))
    assert (call(unet, shared) - call(unet, None)).abs().max() > 1e-3


def test_what_is_given_to_which_block() -> None:
    _, net = video_model()
    one = injections(net).given
    assert list(one) == ["input_blocks.1", "output_blocks.2", "output_blocks.3"]
    assert {tuple(x.shape) for x in one.values()} == {(2, 1, 64, 8, 8)}
    z_c = torch.randn(10, 8, 8, 8)
    with torch.no_grad():
        features = net.features(z_c, torch.zeros(10), None, frames=5)
        made = net.inject(features, frames=5, strength=0.5)
        norm = F.group_norm(features[0], 32)  # output block 3 sees f_0
    assert_close(made.given["output_blocks.3"][1], 0.5 * norm[[5, 9]])
    without = AppearNet(AppearNetConfig(MINI.inflated(), hidden=16))
    assert not injections(without).given


@pytest.mark.parametrize("levels", [(1, 2), (1, 2, 4)])
@pytest.mark.parametrize("res_blocks", [1, 2])
def test_features_have_the_channels_that_the_blocks_expect(levels: tuple[int, ...], res_blocks: int) -> None:
    config = replace(
        CONFIG, channel_mult=levels, transformer_depth=(1,) * len(levels), num_res_blocks=res_blocks
    )
    net = AppearNet(AppearNetConfig(config, hidden=16))
    unet = UNet3D(config)
    there = {
        k.rsplit(".appearance_attention", 1)[0] for k in unet.state_dict() if ".appearance_attention." in k
    }
    assert {f"{block}.1" for block in net.given_features} == there and len(there) == 2 * res_blocks + 1
    assert call(unet, injections(net)).isfinite().all()


def test_configurations() -> None:
    assert UNetConfig.from_dict(CONFIG.to_dict()) == CONFIG
    before = {k: v for k, v in MINI.inflated().to_dict().items() if k != "appearance_attention"}
    assert UNetConfig.from_dict(before) == MINI.inflated(), "files of earlier versions"
    assert not CONFIG.as_2d().appearance_attention
    assert not AppearNetConfig(CONFIG).encoder.appearance_attention
    with pytest.raises(ValueError, match="it needs a transformer at the finest level and a multiple of 8"):
        replace(CONFIG, transformer_depth=(0, 1))
    with pytest.raises(ValueError, match="whose AppearNet has no features of it: its injection is 'concat'"):
        AppearNetConfig(CONFIG, injection="concat")
