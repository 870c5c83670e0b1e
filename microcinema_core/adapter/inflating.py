"""A Stable Diffusion file or diffusers folder in the host's folders becomes MODEL and APPEARNET."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from ..config import InjectionKind
from ..diffusion.schedule import Prediction
from ..files.checkpoint import Checkpoint
from ..files.inflate import guess_prediction, inflate
from ..files.stable_diffusion import read_unet
from .loading import Loaded, build_appearnet, build_model

TEMPORAL_LAYOUTS: dict[str, dict[str, Any]] = {
    "paper": {"temporal_conv": "per_conv", "temporal_attention": "self", "position_encoding": "sinusoidal"},
    "donor": {
        "temporal_conv": "per_resblock",
        "temporal_attention": "transformer",
        "position_encoding": "none",
    },
}
"""Where the layers over time go: after each convolution and attention, or as in published motion weights."""

UNTRAINED_FPS, UNTRAINED_FRAMES = 2.0, 9
"""What the paper's base model makes; an inflated model takes it on until it is trained."""


def inflate_checkpoint(
    path: Path, *, injection: str, temporal_layout: str, prediction: str = "auto"
) -> Loaded:
    """Return MODEL and APPEARNET of a Stable Diffusion 1.x or 2.x file or diffusers folder, untrained.

    Its lambda is 0: a network that never saw the noise prior is right only without it.

    Raises:
        ValueError: no such file, no Stable Diffusion 1.x or 2.x, or keys that this U-Net does not have.
    """
    spatial, said = read_unet(path)
    try:
        born = inflate(spatial, injection=cast(InjectionKind, injection), **TEMPORAL_LAYOUTS[temporal_layout])
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    strangers = sorted(set(spatial) - set(born.unet))
    if strangers:
        raise ValueError(
            f"{path.name}: {len(strangers)} keys that Stable Diffusion's U-Net does not have, the first is "
            f"{strangers[0]}; a plain Stable Diffusion 1.x or 2.x was expected."
        )
    predicted = (said or guess_prediction(spatial)) if prediction == "auto" else prediction
    checkpoint = Checkpoint(
        parts={"unet": born.unet, "appearnet": born.appearnet},
        role="unet",
        configs={"unet": born.unet_config.to_dict(), "appearnet": born.appearnet_config.to_dict()},
        lambda_=0.0,
        fps=UNTRAINED_FPS,
        frames=UNTRAINED_FRAMES,
        prediction=cast(Prediction, predicted),
        name=path.name,
    )
    return Loaded(model=build_model(checkpoint), clip=None, vae=None, appearnet=build_appearnet(checkpoint))
