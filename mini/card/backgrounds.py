"""Backgrounds drawn on the device: those of `world.backgrounds`, a batch at a time.

Blurred photographs are enlarged from a small copy. Everything is computed for every picture of a batch and then chosen,
as asking the device how many of a kind there are would make it wait.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..world.backgrounds import COLOURS
from .draws import DeviceRandom

ORDER = ("flat", "gradient", "photo", "blurred")
"""Kinds of backgrounds by number."""
SMALL = 40
"""Edge of the copy of a photograph that blurred ones are enlarged from; the crops have 14 to 40 of its pixels."""
CROP = (0.35, 1.0)


def rgb_of(hsv: Tensor) -> Tensor:
    """Convert hue (in turns), saturation and value `n 3` to RGB `n 3`, as colorsys does."""
    hue, saturation, value = hsv.unbind(1)
    shift = torch.arange(5, 0, -2, device=hsv.device)  # red, green, blue
    k = (shift + hue[:, None] * 6) % 6
    return value[:, None] * (1 - saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))


class Backgrounds:
    """A source of backgrounds.

    Args:
        photos: RGB, uint8 `n 3 h w`, on the device.
        size: edge of the pictures in pixels.
        kinds: probabilities of the kinds by name.
    """

    def __init__(self, photos: Tensor, size: int, kinds: Mapping[str, float]) -> None:
        self.device, self.size = photos.device, size
        self.shares = [kinds.get(kind, 0.0) for kind in ORDER]
        self.photos = photos.float() / 255
        self.small = F.interpolate(self.photos, size=(SMALL, SMALL), mode="area")
        bounds = torch.tensor([list(bounds) for bounds in COLOURS.values()], device=self.device)
        self.low, self.high = bounds[:, :, 0], bounds[:, :, 1]
        self.axis = torch.linspace(-1, 1, size, device=self.device)

    def draw(self, count: int, random: DeviceRandom) -> tuple[Tensor, Tensor, Tensor]:
        """Draw backgrounds.

        Returns:
            RGB `n 3 s s` in [0, 1], the number of each one's kind (n,) in `ORDER`, and of its colour if flat (n,).
        """
        kind = random.kinds(self.shares, count)
        colour = random.integers(len(COLOURS), (count,))
        pixels = self._flat(colour, random)[:, :, None, None].expand(-1, -1, self.size, self.size)
        for number, make in enumerate((self._gradients, self._sharp, self._blurred), start=1):
            if self.shares[number]:
                pixels = torch.where((kind == number)[:, None, None, None], make(count, random), pixels)
        return pixels, kind, colour

    def _flat(self, colour: Tensor, random: DeviceRandom) -> Tensor:
        low, high = self.low[colour], self.high[colour]
        hsv = low + (high - low) * torch.stack([random.uniform(len(colour)) for _ in range(3)], dim=1)
        return rgb_of(hsv)

    def _gradients(self, count: int, random: DeviceRandom) -> Tensor:
        """Draw gradients between two arbitrary colours: linear at any angle, or radial about any point."""
        ends = random.uniform(count * 6).view(2, count, 3, 1, 1)
        angle, radial = random.between(0, 2 * math.pi, count), random.uniform(count) >= 0.7
        x, y = (random.between(-0.7, 0.7, count)[:, None, None] for _ in range(2))
        across, down = self.axis[None, None, :], self.axis[None, :, None]
        linear = across * angle.cos()[:, None, None] + down * angle.sin()[:, None, None]
        ramp = torch.where(radial[:, None, None], torch.hypot(across - x, down - y), linear)
        low, high = ramp.amin((1, 2), keepdim=True), ramp.amax((1, 2), keepdim=True)
        return torch.lerp(ends[0], ends[1], ((ramp - low) / (high - low))[:, None])

    def _sharp(self, count: int, random: DeviceRandom) -> Tensor:
        return self._crops(self.photos, "bilinear", count, random)

    def _blurred(self, count: int, random: DeviceRandom) -> Tensor:
        return self._crops(self.small, "bicubic", count, random).clamp(0, 1)

    def _crops(self, photos: Tensor, mode: str, count: int, random: DeviceRandom) -> Tensor:
        """Draw square crops, mirrored or not."""
        edge = random.between(*CROP, count)
        x, y = ((1 - edge) * random.between(-1, 1, count) for _ in range(2))
        mirrored = edge * (1 - 2 * random.integers(2, (count,)))
        zero = torch.zeros_like(edge)
        rows = torch.stack([mirrored, zero, x, zero, edge, y], dim=1).view(count, 2, 3)
        grid = F.affine_grid(rows, [count, 3, self.size, self.size], align_corners=False)
        chosen = photos[random.integers(len(photos), (count,))]
        return F.grid_sample(chosen, grid, mode=mode, padding_mode="reflection", align_corners=False)
