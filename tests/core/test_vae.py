"""The VAE: sizes, errors, draws from the posterior, and normalised latents."""

from __future__ import annotations

import pytest
import torch

from microcinema_core.config import VAEConfig
from microcinema_core.networks.vae import FoldedVAE, fold_statistics

TINY = VAEConfig(latent_channels=4, widths=(16, 16), res_blocks=1, decoder_blocks=1, norm_groups=8)


@pytest.fixture
def vae() -> FoldedVAE:
    torch.manual_seed(0)
    return FoldedVAE(TINY).eval()


@pytest.mark.parametrize("size", [(8, 8), (16, 40), (128, 128), (24, 8)])
def test_any_size_divisible_by_8(vae: FoldedVAE, size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size) * 2 - 1
    mean, std = vae.encode_moments(x)
    assert mean.shape == std.shape == (2, 4, size[0] // 8, size[1] // 8)
    assert bool((std > 0).all())
    assert vae.decode(mean).shape == x.shape


@pytest.mark.parametrize("shape", [(1, 3, 12, 16), (1, 4, 16, 16), (3, 16, 16), (1, 3, 0, 8)])
def test_wrong_pictures_are_told(vae: FoldedVAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        vae.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match="4, h, w"):
        vae.decode(torch.zeros(1, 3, 2, 2))


def test_folded_latents_are_normal_and_pictures_unchanged(vae: FoldedVAE) -> None:
    x = torch.rand(8, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before, z = vae(x), vae.encode(x)
        _, old_std = vae.encode_moments(x)
        std, mean = torch.std_mean(z, dim=(0, 2, 3))
        fold_statistics(vae, mean, std)
        new_std, new_mean = torch.std_mean(vae.encode(x), dim=(0, 2, 3))
        torch.testing.assert_close(new_mean, torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(new_std, torch.ones(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(vae(x), before, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            vae.encode_moments(x)[1], old_std / std[:, None, None], atol=1e-4, rtol=1e-4
        )


def test_a_draw_follows_its_generator(vae: FoldedVAE) -> None:
    x = torch.rand(1, 3, 16, 16)
    first = vae.encode(x, generator=torch.Generator().manual_seed(3))
    again = vae.encode(x, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert not torch.equal(first, vae.encode(x))


def test_config_goes_to_json_and_back() -> None:
    config = VAEConfig(latent_rgb=((0.1, 0.2), (0.3, 0.4), (0.5, 0.6)))
    assert VAEConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="latent_chanels"):
        VAEConfig.from_dict({"latent_chanels": 8})
    with pytest.raises(ValueError, match="not divisible"):
        VAEConfig(widths=(100, 128))
