"""What a model's weights were trained for: `ModelSpec`, kept in every file beside its networks' configurations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar, get_args, get_type_hints

from . import json_text
from .config import MOTIONS, PREDICTIONS, ROLES, Betas, Config, Motion, Prediction, frozen
from .values import Range, checked, checked_fields, shown


@dataclass(frozen=True)
class WindowShape(Config):
    """The shape of the windows of temporal super-resolution, a property of the weights.

    Attributes:
        factor: factor of one round in the frame rate; every `factor`-th frame of a window is a key frame.
        pairs: pairs of adjacent key frames in a window.
    """

    RANGES: ClassVar[dict[str, Range]] = {"factor": (2, 64), "pairs": (1, 64)}

    factor: int = 4
    pairs: int = 1

    def __post_init__(self) -> None:
        if self.factor < 2 or self.pairs < 1:
            raise ValueError(
                f"a window has a factor of {self.factor} and {self.pairs} pairs; expected a factor of at least 2 and "
                "at least 1 pair"
            )

    @property
    def frames(self) -> int:
        """Frames of a window."""
        return self.factor * self.pairs + 1


@dataclass(frozen=True)
class SamplerDefaults(Config):
    """Sampler settings that a model's weights are at their best with; the nodes use them where an input is on auto.

    Attributes:
        steps: sampling steps.
        cfg: scale of classifier-free guidance; 1 turns it off.
        sampler, scheduler: names of ComfyUI's sampler and scheduler.
        gamma: share of z_c that is added to the starting noise (section 4.2.2).
    """

    RANGES: ClassVar[dict[str, Range]] = {"steps": (1, 10000), "cfg": (0, 100), "gamma": (0, 1)}

    steps: int = 20
    cfg: float = 6.0
    sampler: str = "euler"
    scheduler: str = "normal"
    gamma: float = 0.02

    def __post_init__(self) -> None:
        checked_fields(self.to_dict(), get_type_hints(type(self)), self.RANGES, type(self).__name__)


@dataclass(frozen=True)
class ModelSpec:
    """What a model's weights were trained for; carried whole from a file's metadata to ComfyUI's MODEL.

    Attributes:
        role: one of `ROLES`.
        lambda_: share of z_c in the training noise (Eq. 3); 0 for weights trained without the prior.
        fps, frames: frame rate and number of frames of a clip; 0 and 1 for an image model.
        prediction: what the network predicts, "eps" or "v".
        betas: form of the noise schedule.
        zero_terminal_snr: whether the noisiest step has no signal (Lin et al. 2023); needs v-prediction.
        residual: scale of the difference from z_c that is diffused (`noise.from_residual`); 0 diffuses the frames.
        sampling: the sampler settings that suit the weights.
        window: the shape of the windows that a TSR model was trained on.
        origin: name of the published weights; empty for MicroCinema's own. Published ones know no noise prior.
        rates: what a network with `fps_embedding` is told for small, medium and large motion, or one value for all.
        rescale: factor on clean latents at the noisiest steps (`schedule.latent_scales`); 1 for none.
    """

    role: str
    lambda_: float = 0.0
    fps: float = 0.0
    frames: int = 1
    prediction: Prediction = "eps"
    betas: Betas = "scaled_linear"
    zero_terminal_snr: bool = False
    residual: float = 0.0
    sampling: SamplerDefaults = SamplerDefaults()
    window: WindowShape = WindowShape()
    origin: str = ""
    rates: tuple[float, ...] = ()
    rescale: float = 1.0

    PREFIX: ClassVar[str] = "microcinema."
    RANGES: ClassVar[dict[str, Range]] = {
        "lambda_": (0, 1),
        "fps": (0, 1000),
        "frames": (1, 4096),
        "residual": (0, 100),
        "rescale": (0.01, 1),
    }

    def __post_init__(self) -> None:
        if self.role not in ROLES or self.prediction not in PREDICTIONS:
            raise ValueError(
                f"role {shown(self.role)} with prediction {shown(self.prediction)} is unknown, "
                f"expected one of {', '.join(ROLES)} with one of {', '.join(PREDICTIONS)}"
            )
        for name in self.RANGES:
            kind = int if name == "frames" else float
            checked(getattr(self, name), kind, name.rstrip("_"), self.RANGES[name])
        checked(self.rates, tuple[float, ...], "rates", (0, 1000))
        if len(self.rates) not in (0, 1, len(MOTIONS)):
            raise ValueError(f"rates has {len(self.rates)} numbers; expected none, one or {len(MOTIONS)}")
        if self.role in ("base", "tsr") and not self.fps:
            raise ValueError(f"fps is 0 in a file of role {self.role!r}; expected its frame rate")
        if self.zero_terminal_snr and self.prediction == "eps":
            raise ValueError(
                "zero terminal SNR was given with prediction 'eps', but needs 'v': pure noise holds no information "
                "on z_0 for a model that predicts noise"
            )

    def to_metadata(self) -> dict[str, str]:
        """Return the entries of a file's metadata, with keys under `microcinema.`."""
        entries = {
            "role": self.role,
            "lambda": repr(float(self.lambda_)),
            "fps": repr(float(self.fps)),
            "frames": str(int(self.frames)),
            "prediction": self.prediction,
            "terminal": "zero" if self.zero_terminal_snr else "sd",
            "residual": repr(float(self.residual)),
        }
        if self.betas != "scaled_linear":
            entries["betas"] = self.betas
        if self.sampling != SamplerDefaults():
            entries["sampling"] = json.dumps(self.sampling.to_dict(), sort_keys=True)
        if self.window != WindowShape():
            entries["window"] = json.dumps(self.window.to_dict(), sort_keys=True)
        if self.origin:
            entries["origin"] = self.origin
        if self.rates:
            entries["rates"] = json.dumps(self.rates)
        if self.rescale != 1:
            entries["rescale"] = repr(float(self.rescale))
        return {self.PREFIX + key: value for key, value in entries.items()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> ModelSpec:
        """Build the spec from a file's metadata; entries that earlier versions did not write have defaults.

        Raises:
            KeyError: an entry is missing.
            ValueError: an entry is unreadable, or has an unknown value.
        """
        entries = {
            key.removeprefix(cls.PREFIX): value
            for key, value in metadata.items()
            if key.startswith(cls.PREFIX)
        }
        betas, terminal = entries.get("betas", "scaled_linear"), entries.get("terminal", "sd")
        if betas not in get_args(Betas) or terminal not in ("sd", "zero"):
            raise ValueError(
                f"betas {shown(betas)} with terminal {shown(terminal)} is unknown to this version; expected "
                f"{' or '.join(get_args(Betas))} with sd or zero"
            )
        return cls(
            role=entries["role"],
            lambda_=_number("lambda", entries["lambda"]),
            fps=_number("fps", entries["fps"]),
            frames=_whole("frames", entries["frames"]),
            prediction=entries.get("prediction", "eps"),  # type: ignore[arg-type]
            betas=betas,  # type: ignore[arg-type]
            zero_terminal_snr=terminal == "zero",
            residual=_number("residual", entries.get("residual", "0")),
            sampling=SamplerDefaults.from_dict(parse_json("sampling", entries.get("sampling", "{}"))),
            window=WindowShape.from_dict(parse_json("window", entries.get("window", "{}"))),
            origin=entries.get("origin", ""),
            rates=frozen(parse_json("rates", entries.get("rates", "[]"))),
            rescale=_number("rescale", entries.get("rescale", "1")),
        )

    def rate(self, motion: Motion = "medium") -> float | None:
        """Return what a network with `fps_embedding` is told for an amount of motion; None where it is told none."""
        return None if not self.rates else self.rates[MOTIONS.index(motion) if len(self.rates) > 1 else 0]


def parse_json(name: str, text: str) -> Any:
    """Return the value of a metadata entry.

    Raises:
        ValueError: no JSON, or JSON that is nested too deeply.
    """
    try:
        return json_text.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is {shown(text)}; expected JSON") from error


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name} is {shown(text)}; expected a number") from error


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{name} is {shown(text)}; expected a whole number") from error


UNTRAINED = ModelSpec("unet", fps=2.0, frames=9)
"""The spec of an inflated, untrained model: the clip of the paper's base model, and no noise prior."""
