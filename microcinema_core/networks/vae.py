"""The mini family's autoencoder: 8x, few channels, cheap on a CPU because pixels are folded into channels first.

A linear path (an 8x8 patch code, which training starts from the principal components) runs beside the convolutions, so
that the network only has to learn what a linear code cannot do.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..vae_config import VAEConfig


class ResBlock(nn.Module):
    """GroupNorm, SiLU, conv, twice, on top of the identity."""

    def __init__(self, width: int, groups: int, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.norm1 = operations.GroupNorm(groups, width, **kw)
        self.conv1 = operations.Conv2d(width, width, 3, padding=1, **kw)
        self.norm2 = operations.GroupNorm(groups, width, **kw)
        self.conv2 = operations.Conv2d(width, width, 3, padding=1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


def _blocks(count: int, width: int, groups: int, operations: Any, **kw: Any) -> nn.Sequential:
    return nn.Sequential(*(ResBlock(width, groups, operations, **kw) for _ in range(count)))


class Encoder(nn.Module):
    """(b, 3, h, w) -> (b, 2 * latent_channels, h/8, w/8): mean and log-variance."""

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
        h = self.fine(self.conv_in(F.pixel_unshuffle(x, self.fold)))
        h = self.coarse(self.down(h))
        return self.conv_out(F.silu(self.norm_out(h))) + self.linear(F.pixel_unshuffle(x, self.downscale))


class Decoder(nn.Module):
    """(b, latent_channels, h, w) -> (b, 3, 8h, 8w)."""

    def __init__(self, config: VAEConfig, operations: Any, **kw: Any) -> None:
        super().__init__()
        self.fold, self.downscale = config.fold, config.downscale
        fine, coarse = config.widths
        groups = config.norm_groups
        self.conv_in = operations.Conv2d(
            config.latent_channels, coarse, 1, **kw
        )  # 1x1: statistics fold into it exactly
        self.coarse = _blocks(config.decoder_blocks, coarse, groups, operations, **kw)
        self.up = operations.Conv2d(coarse, 4 * fine, 3, padding=1, **kw)
        self.fine = _blocks(config.decoder_blocks, fine, groups, operations, **kw)
        self.norm_out = operations.GroupNorm(groups, fine, **kw)
        self.conv_out = operations.Conv2d(fine, 3 * config.fold**2, 3, padding=1, **kw)
        self.linear = operations.Conv2d(config.latent_channels, 3 * config.downscale**2, 1, **kw)

    def forward(self, z: Tensor) -> Tensor:
        h = self.up(self.coarse(self.conv_in(z)))
        h = self.fine(F.pixel_shuffle(h, 2))
        h = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.fold)
        return h + F.pixel_shuffle(self.linear(z), self.downscale)


class FoldedVAE(nn.Module):
    """Pictures (b, 3, h, w) in [-1, 1] <-> latents (b, c, h/8, w/8); h and w are multiples of 8.

    `operations` is the namespace that layers come from (torch.nn, or the host's).
    """

    def __init__(
        self, config: VAEConfig, *, operations: Any = nn, dtype: torch.dtype | None = None, device: Any = None
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, operations, dtype=dtype, device=device)
        self.decoder = Decoder(config, operations, dtype=dtype, device=device)

    def encode_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior, each (b, c, h/8, w/8); ValueError on other sizes."""
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
        """Latents of pictures: the posterior's mean, or a draw from it if a generator is given."""
        mean, std = self.encode_moments(x)
        if generator is None:
            return mean
        return mean + std * torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)

    def decode(self, z: Tensor) -> Tensor:
        """Pictures of latents, not clamped; ValueError if the channels are not this model's."""
        if z.ndim != 4 or z.shape[1] != self.config.latent_channels:
            raise ValueError(
                f"the VAE's decoder got {tuple(z.shape)}, it takes (batch, {self.config.latent_channels}, h, w)"
            )
        return self.decoder(z)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return self.decode(self.encode(x, generator=generator))


@torch.no_grad()
def fold_statistics(vae: FoldedVAE, mean: Tensor, std: Tensor) -> None:
    """Change the VAE's latents to (z - mean) / std per channel, in place; reconstructions stay the same.

    mean, std: (c,) of the latents that the VAE gives now. The encoder's last and the decoder's first layers take it up.
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
