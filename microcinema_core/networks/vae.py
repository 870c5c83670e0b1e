"""A small 8x autoencoder that folds pixels into channels before the first convolution.

The folding makes it cheap on a CPU. A linear path runs beside the convolutions, so that they only learn what a linear
code cannot express. The path is a code of 8x8 patches, which training initialises from their principal components.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import VAEConfig


class VAEResBlock(nn.Module):
    """GroupNorm, SiLU and convolution, twice, with a skip connection."""

    def __init__(self, width: int, groups: int, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.norm1 = operations.GroupNorm(groups, width, **kw)
        self.conv1 = operations.Conv2d(width, width, 3, padding=1, **kw)
        self.norm2 = operations.GroupNorm(groups, width, **kw)
        self.conv2 = operations.Conv2d(width, width, 3, padding=1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        """Map features `b c h w` to `b c h w`."""
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


def _blocks(count: int, width: int, groups: int, operations: Any, **kw: Any) -> nn.Sequential:
    return nn.Sequential(*(VAEResBlock(width, groups, operations, **kw) for _ in range(count)))


class VAEEncoder(nn.Module):
    """The encoder: folded pixels at 1/4 size, residual blocks there and at 1/8, plus the linear path."""

    def __init__(self, config: VAEConfig, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.fold, self.downscale = config.fold, config.downscale
        fine, coarse = config.widths
        groups, out = config.norm_groups, 2 * config.latent_channels
        self.conv_in = operations.Conv2d(3 * config.fold**2, fine, 3, padding=1, **kw)
        self.fine = _blocks(config.res_blocks, fine, groups, operations, **kw)
        self.down = operations.Conv2d(fine, coarse, 3, stride=2, padding=1, **kw)
        self.coarse = _blocks(config.res_blocks, coarse, groups, operations, **kw)
        self.norm_out = operations.GroupNorm(groups, coarse, **kw)
        self.conv_out = operations.Conv2d(coarse, out, 3, padding=1, **kw)
        self.linear = operations.Conv2d(3 * config.downscale**2, out, 1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `b 3 h w` in [-1, 1] to mean and log-variance, `b (2 c) h/8 w/8`."""
        h = self.fine(self.conv_in(F.pixel_unshuffle(x, self.fold)))
        h = self.coarse(self.down(h))
        return self.conv_out(F.silu(self.norm_out(h))) + self.linear(F.pixel_unshuffle(x, self.downscale))


class VAEDecoder(nn.Module):
    """The decoder: residual blocks at 1/8 and 1/4 size, unfolding to pixels, plus the linear path."""

    def __init__(self, config: VAEConfig, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.fold, self.downscale = config.fold, config.downscale
        fine, coarse = config.widths
        groups = config.norm_groups
        # 1x1, so that `fold_statistics` can fold an affine map into it exactly.
        self.conv_in = operations.Conv2d(config.latent_channels, coarse, 1, **kw)
        self.coarse = _blocks(config.decoder_blocks, coarse, groups, operations, **kw)
        self.up = operations.Conv2d(coarse, 4 * fine, 3, padding=1, **kw)
        self.fine = _blocks(config.decoder_blocks, fine, groups, operations, **kw)
        self.norm_out = operations.GroupNorm(groups, fine, **kw)
        self.conv_out = operations.Conv2d(fine, 3 * config.fold**2, 3, padding=1, **kw)
        self.linear = operations.Conv2d(config.latent_channels, 3 * config.downscale**2, 1, **kw)

    def forward(self, z: Tensor) -> Tensor:
        """Map latents `b c h w` to images `b 3 (8 h) (8 w)`, not clamped."""
        h = self.up(self.coarse(self.conv_in(z)))
        h = self.fine(F.pixel_shuffle(h, 2))
        h = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.fold)
        return h + F.pixel_shuffle(self.linear(z), self.downscale)


class FoldedVAE(nn.Module):
    """A variational autoencoder between images `b 3 h w` in [-1, 1] and latents `b c h/8 w/8`.

    Args:
        config: number of channels, widths and blocks.
        operations: namespace of layer classes, torch.nn or one of the host's.
        dtype: dtype of the weights; None is torch's default.
        device: device of the weights; None is torch's default.
    """

    def __init__(
        self, config: VAEConfig, *, operations: Any = nn, dtype: torch.dtype | None = None, device: Any = None
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = VAEEncoder(config, operations, dtype=dtype, device=device)
        self.decoder = VAEDecoder(config, operations, dtype=dtype, device=device)

    def encode_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the posterior of images, each `b c h/8 w/8`.

        Raises:
            ValueError: the input is not `b 3 h w`, or h or w is not a positive multiple of 8.
        """
        if (
            x.ndim != 4
            or x.shape[1] != 3
            or any(side % self.config.downscale or not side for side in x.shape[-2:])
        ):
            raise ValueError(
                f"the VAE got {tuple(x.shape)}, it takes (batch, 3, height, width) with both sides "
                f"multiples of {self.config.downscale}: resize or crop the picture"
            )
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, (0.5 * log_variance.clamp(-20, 10)).exp()

    def encode(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Encode images to latents: the posterior's mean, or a draw from it if a generator is given.

        Shapes and errors as for `encode_moments`.
        """
        mean, std = self.encode_moments(x)
        if generator is None:
            return mean
        return mean + std * torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents `b c h w` to images `b 3 (8 h) (8 w)`, not clamped to [-1, 1].

        Raises:
            ValueError: the number of channels is another model's.
        """
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"the VAE's decoder got {tuple(z.shape)}, it takes (batch, {self.config.latent_channels}, h, w)"
            )
        return self.decoder(z)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Reconstruct images `b 3 h w` from the posterior's mean, or from a draw if a generator is given."""
        return self.decode(self.encode(x, generator=generator))


@torch.no_grad()
def fold_statistics(vae: FoldedVAE, mean: Tensor, std: Tensor) -> None:
    """Normalise the VAE's latents in place to (z - mean) / std per channel; reconstructions stay the same.

    The affine map is folded into the encoder's last and the decoder's first layers.

    Args:
        vae: the autoencoder.
        mean: means of its present latents, `c`.
        std: standard deviations of its present latents, `c`.
    """
    channels = len(mean)
    for layer in (vae.encoder.conv_out, vae.encoder.linear):
        layer.weight[:channels] /= std[:, None, None, None]
        layer.bias[:channels] /= std
    vae.encoder.linear.bias[:channels] -= mean / std
    vae.encoder.linear.bias[channels:] -= 2 * std.log()
    for layer in (vae.decoder.conv_in, vae.decoder.linear):
        layer.bias += torch.einsum("ocij,c->o", layer.weight, mean)
        layer.weight *= std[None, :, None, None]
