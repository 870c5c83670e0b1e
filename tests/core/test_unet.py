"""The inflated network is the image model until it is trained, and every layer over time can learn."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.testing import assert_close

from microcinema_core.config import MINI, AppearNetConfig, UNetConfig
from microcinema_core.files.inflate import config_of, from_diffusers, inflate, initial_tensor
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.unet import UNet3D, is_temporal

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
    born = inflate(spatial, **layout)
    ours = load(born.unet_config, born.unet)
    x, t, context = noisy(born.unet_config)
    y = ours(x, t, context, frames=FRAMES)
    flat = load(config_of(spatial), spatial)
    assert torch.equal(y, flat(x, t, context)), "temporal layers at birth must not change a bit"
    expected = theirs(x, t, context).sample
    assert (y - expected).norm() / expected.norm() < 1e-5


@torch.no_grad()
def test_clip_norm_is_the_image_model_on_equal_frames_only() -> None:
    born = inflate(from_diffusers(tiny_diffusers("sd2").state_dict()), injected_norm="clip")
    ours, flat = load(born.unet_config, born.unet), UNet3D(born.unet_config.as_2d())
    flat.load_state_dict({k: v for k, v in born.unet.items() if not is_temporal(k)})
    x, t, context = noisy(born.unet_config, clips=1)
    same, same_text = x[:1].expand_as(x), context[:1].expand_as(context)
    assert_close(ours(same, t, same_text, frames=FRAMES), flat(same, t, same_text), rtol=1e-4, atol=1e-5)
    assert (ours(x, t, context, frames=FRAMES) - flat(x, t, context)).abs().max() > 1e-3


def test_config_is_read_off_the_tensors() -> None:
    config = config_of(from_diffusers(tiny_diffusers("sd2").state_dict()))
    assert (config.model_channels, config.channel_mult, config.num_res_blocks) == (64, (1, 2, 2, 2), 2)
    assert (config.transformer_depth, config.context_dim, config.num_head_channels) == ((1, 1, 1, 0), 96, 64)


def test_inflation_starts_new_tensors_as_the_classes_do() -> None:
    config = MINI.inflated()
    for net in (UNet3D(config), AppearNet(AppearNetConfig(config))):
        generator = torch.Generator().manual_seed(0)
        for key, tensor in net.state_dict().items():
            ours = initial_tensor(key, tensor.shape, generator, torch.float32)
            born_zero = not tensor.any()
            if born_zero or is_temporal(key):
                assert born_zero == (not ours.any()) or key.endswith("bias"), key


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
    # A bias of the keys moves all scores of a query alike, and softmax does not see it; there is none in these layers.
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
