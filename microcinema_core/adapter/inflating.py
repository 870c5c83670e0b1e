"""Stable Diffusion inflated to an untrained MODEL and APPEARNET, from a file or from a stock MODEL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..config import (
    INJECTED_NORMS,
    INJECTIONS,
    PREDICTIONS,
    TEMPORAL_LAYOUTS,
    InjectionKind,
    Prediction,
    UNetConfig,
)
from ..files.checkpoint import Checkpoint
from ..files.inflate import Inflated, inflate
from ..files.stable_diffusion import read_stable_diffusion
from ..model_spec import UNTRAINED
from ..values import chosen
from .appearance import AUTO
from .loading import Loaded, build_appearnet, build_model
from .stock_model import carry_over, stock_unet

_LAYOUTS = {"paper": "paper", "donor": "modelscope"}
"""Values of Inflate's combo, which saved graphs hold, and the temporal layouts that they stand for."""
INFLATE_CHOICES: dict[str, tuple[str, ...]] = {
    "injection": INJECTIONS,
    "temporal_layout": tuple(_LAYOUTS),
    "prediction": (AUTO, *PREDICTIONS),
    "injected_norm": INJECTED_NORMS,
}
"""Values of each field of `InflateSettings`."""


@dataclass(frozen=True)
class InflateSettings:
    """How a Stable Diffusion U-Net is inflated; each field is one of `INFLATE_CHOICES`.

    Attributes:
        injection: how AppearNet's features reach the U-Net.
        temporal_layout: where the temporal layers go.
        prediction: what the network predicts, "eps" or "v"; `AUTO` takes it from the image model.
        injected_norm: as in `UNetConfig`.

    Raises:
        ValueError: a choice that does not exist.
    """

    injection: str
    temporal_layout: str
    prediction: str = AUTO
    injected_norm: str = "frame"

    def __post_init__(self) -> None:
        for name, choices in INFLATE_CHOICES.items():
            chosen(getattr(self, name), choices, name)

    def inflate(self, spatial: dict[str, Tensor], config: UNetConfig) -> Inflated:
        """Inflate a U-Net's tensors; errors as for `files.inflate.inflate`."""
        temporal = {
            **TEMPORAL_LAYOUTS[_LAYOUTS[self.temporal_layout]],
            "injected_norm": self.injected_norm,
        }
        return inflate(spatial, config=config, injection=cast(InjectionKind, self.injection), **temporal)

    def as_file(self, video: Inflated, own: Prediction, name: str) -> Checkpoint:
        """Return inflated networks in the form of a file.

        Args:
            video: the networks.
            own: what the image model predicts.
            name: its name, for messages.
        """
        predicted = own if self.prediction == AUTO else cast(Prediction, self.prediction)
        return Checkpoint(
            parts={"unet": video.unet, "appearnet": video.appearnet},
            spec=replace(UNTRAINED, prediction=predicted),
            configs={"unet": video.unet_config.to_dict(), "appearnet": video.appearnet_config.to_dict()},
            name=name,
        )


def inflate_checkpoint(path: Path, **choices: str) -> Loaded:
    """Inflate a Stable Diffusion 1.x or 2.x file or diffusers folder to an untrained MODEL and APPEARNET.

    Its lambda is 0, because the weights were trained without the noise prior.

    Args:
        path: the file or folder.
        choices: the fields of `InflateSettings`.

    Raises:
        ValueError: a choice that does not exist, no such file, another model, or keys that this U-Net does not have.
    """
    settings = InflateSettings(**choices)
    image = read_stable_diffusion(path)
    spatial = image.part("unet")
    try:
        video = settings.inflate(spatial, image.described("unet"))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    unknown = sorted(set(spatial) - set(video.unet))
    if unknown:
        raise ValueError(
            f"{path.name}: {len(unknown)} keys that Stable Diffusion's U-Net does not have, the first is "
            f"{unknown[0]}; a plain Stable Diffusion 1.x or 2.x was expected."
        )
    checkpoint = settings.as_file(video, image.spec.prediction, path.name)
    return Loaded(model=build_model(checkpoint), clip=None, vae=None, appearnet=build_appearnet(checkpoint))


def inflate_model(model: Any, **choices: str) -> Loaded:
    """Inflate a stock Stable Diffusion 1.x or 2.x MODEL; its LoRAs and patches act on the result.

    The new MODEL shares the stock one's memory. AppearNet's encoder is a copy, without LoRAs.

    Args:
        model: the MODEL; not changed.
        choices: the fields of `InflateSettings`.

    Raises:
        ValueError: a choice that does not exist, or as for `stock_unet`.
    """
    settings = InflateSettings(**choices)
    stock = stock_unet(model)
    video = settings.inflate(stock.weights, stock.config)
    checkpoint = settings.as_file(video, stock.prediction, "the connected MODEL")
    built = build_model(checkpoint, dtypes=(stock.dtype, stock.manual_cast))
    return Loaded(
        model=carry_over(model, built, checkpoint.spec),
        clip=None,
        vae=None,
        appearnet=build_appearnet(checkpoint),
    )
