"""Shape of the small autoencoder, and the plain-dict form that every config of this package has."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

C = TypeVar("C", bound="DictConfig")


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


class DictConfig:
    """A dataclass that goes to JSON-able dicts and back; unknown keys are errors that name the key."""

    def to_dict(self) -> dict[str, Any]:
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[C], values: dict[str, Any]) -> C:
        known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for key in values:
            if key not in known:
                raise ValueError(f"{cls.__name__} has no key {key!r}; it knows {', '.join(known)}")
        return cls(**{key: _frozen(value) for key, value in values.items()})


@dataclass(frozen=True)
class VAEConfig(DictConfig):
    """8x autoencoder that folds `fold` x `fold` pixels into channels before its first convolution.

    `widths` are the channels at 1/fold and at 1/8 of the picture's size, `res_blocks` and `decoder_blocks` the residual
    blocks at each of the two. `latent_rgb`, if fitted, holds 3 rows of `latent_channels` weights and a bias:
    a linear map from latents to RGB in [-1, 1] for previews.
    """

    latent_channels: int = 8
    fold: int = 4
    widths: tuple[int, int] = (96, 128)
    res_blocks: int = 2
    decoder_blocks: int = 3
    norm_groups: int = 32
    latent_rgb: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.fold != 4:
            raise ValueError(
                f"fold is {self.fold}; the one stride-2 level makes 8x compression with fold = 4 only"
            )
        for width in self.widths:
            if width % self.norm_groups:
                raise ValueError(f"width {width} is not divisible by norm_groups {self.norm_groups}")

    @property
    def downscale(self) -> int:
        return 2 * self.fold
