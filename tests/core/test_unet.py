"""The inflated network is the image model until it is trained, and every temporal layer can learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.testing import assert_close

from microcinema_core.config import INJECTIONS, AppearNetConfig, InjectionKind, UNetConfig
from microcinema_core.files.inflate import inflate
from microcinema_core.files.stable_diffusion import config_of, from_diffusers
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.layers import zero_initialised_keys
from microcinema_core.networks.unet import UNet3D, is_temporal
from mini.stages.image import MINI

FRAMES = 3


def tiny_diffusers(version: str) -> UNet2DConditionModel:
    """A diffusers U-Net with the layout of SD 1.x or 2.x, four levels and attention in three, narrow."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 128, 128),
        cross_attention_dim=96,
        attention_head_dim=8 if version == "sd1" else (1, 2, 2, 2),
        use_linear_projection=version == "sd2",
    ).eval()


def noisy(
    config: UNetConfig, clips: int = 2, size: int = 16
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    n = clips * FRAMES
    x = torch.randn(n, config.in_channels, size, size, generator=g)
    return x, torch.full((n,), 321.0), torch.randn(n, 7, config.context_dim, generator=g)


def load(config: UNetConfig, state: dict[str, torch.Tensor]) -> UNet3D:
    net = UNet3D(config).eval()
    net.load_state_dict(state)
    return net


@pytest.mark.parametrize("version", ["sd1", "sd2"])
@pytest.mark.parametrize(
    "layout",
    [{}, {"temporal_conv": "per_resblock", "temporal_attention": "transformer", "position_encoding": "none"}],
)
@torch.no_grad()
def test_inflated_unet_is_the_image_model_at_birth(version: str, layout: dict[str, str]) -> None:
    theirs = tiny_diffusers(version)
    spatial = from_diffusers(theirs.state_dict())
    inflated = inflate(spatial, **layout)
    ours = load(inflated.unet_config, inflated.unet)
    x, t, context = noisy(inflated.unet_config)
    y = ours(x, t, context, frames=FRAMES)
    flat = load(config_of(spatial), spatial)
    assert torch.equal(y, flat(x, t, context)), "untrained temporal layers must not change a bit"
    expected = theirs(x, t, context).sample
    assert (y - expected).norm() / expected.norm() < 1e-5


@torch.no_grad()
def test_clip_norm_is_the_image_model_on_equal_frames_only() -> None:
    inflated = inflate(from_diffusers(tiny_diffusers("sd2").state_dict()), injected_norm="clip")
    ours, flat = load(inflated.unet_config, inflated.unet), UNet3D(inflated.unet_config.as_2d())
    flat.load_state_dict({k: v for k, v in inflated.unet.items() if not is_temporal(k)})
    x, t, context = noisy(inflated.unet_config, clips=1)
    same, same_text = x[:1].expand_as(x), context[:1].expand_as(context)
    assert_close(ours(same, t, same_text, frames=FRAMES), flat(same, t, same_text), rtol=1e-4, atol=1e-5)
    assert (ours(x, t, context, frames=FRAMES) - flat(x, t, context)).abs().max() > 1e-3


def test_config_is_read_off_the_tensors() -> None:
    config = config_of(from_diffusers(tiny_diffusers("sd2").state_dict()))
    assert (config.model_channels, config.channel_mult, config.num_res_blocks) == (64, (1, 2, 2, 2), 2)
    assert (config.transformer_depth, config.context_dim, config.num_head_channels) == ((1, 1, 1, 0), 96, 64)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("temporal_attention", ["self", "transformer"])
@pytest.mark.parametrize("temporal_conv", ["per_conv", "per_resblock"])
def test_inflation_starts_new_tensors_as_the_classes_do(
    temporal_conv: str, temporal_attention: str, injection: InjectionKind
) -> None:
    """Key by key, what the constructor leaves at zero is zero after inflation, and nothing else is.

    Biases that torch draws are the one exception: inflation starts new ones at zero.
    """
    torch.manual_seed(0)
    layout: dict[str, Any] = {"temporal_conv": temporal_conv, "temporal_attention": temporal_attention}
    config = MINI.inflated(**layout)
    inflated = inflate(UNet3D(MINI.as_2d()).state_dict(), config=MINI, injection=injection, **layout)
    networks = {
        UNet3D(config): inflated.unet,
        AppearNet(AppearNetConfig(config, injection=injection)): inflated.appearnet,
    }
    for net, ours in networks.items():
        assert list(ours) == list(net.state_dict())
        for key, tensor in net.state_dict().items():
            is_zero = not tensor.any()
            if is_zero or not key.endswith("bias"):
                assert is_zero == (not ours[key].any()), key


@pytest.mark.parametrize("temporal_attention", ["self", "transformer"])
@pytest.mark.parametrize("temporal_conv", ["per_conv", "per_resblock"])
def test_zero_initialised_weights_are_marked_on_the_meta_device(
    temporal_conv: str, temporal_attention: str
) -> None:
    config = MINI.inflated(temporal_conv=temporal_conv, temporal_attention=temporal_attention)
    zero = {key for key, p in UNet3D(config).named_parameters() if key.endswith("weight") and not p.any()}
    with torch.device("meta"):
        marked = zero_initialised_keys(UNet3D(config))
    assert zero and {key for key in marked if key.endswith("weight")} == zero


@pytest.mark.parametrize(
    "layout",
    [{}, {"temporal_conv": "per_resblock", "temporal_attention": "transformer"}],
    ids=["paper", "donor"],
)
def test_every_temporal_layer_learns_from_the_first_steps(layout: dict[str, str]) -> None:
    torch.manual_seed(0)
    config = MINI.inflated(**layout)
    net = UNet3D(config)
    before = {name: p.detach().clone() for name, p in net.named_parameters() if is_temporal(name)}
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    x, t, context = noisy(config, size=8)
    for _ in range(2):
        optimizer.zero_grad()
        (net(x, t, context, frames=FRAMES) - x.roll(1, 0)).square().mean().backward()
        optimizer.step()
    still = [name for name, p in net.named_parameters() if is_temporal(name) and torch.equal(p, before[name])]
    # These layers have no key bias: it would shift all scores of a query equally, which softmax ignores.
    assert not still


def test_a_batch_that_holds_no_whole_clips_is_refused() -> None:
    net = UNet3D(MINI.inflated())
    with pytest.raises(ValueError, match="7 latents does not divide into clips of 3 frames"):
        net(torch.zeros(7, 8, 8, 8), torch.zeros(7), torch.zeros(7, 4, 128), frames=3)


def test_sdxl_and_inpainting_are_named() -> None:
    sd = from_diffusers(tiny_diffusers("sd2").state_dict())
    with pytest.raises(ValueError, match="SDXL"):
        config_of({**sd, "label_emb.0.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="takes 9 channels"):
        config_of({**sd, "input_blocks.0.0.weight": torch.zeros(64, 9, 3, 3)})
