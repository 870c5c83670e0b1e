"""The [model] and [loss] tables of the stages `base` and `tsr`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..config import INJECTIONS, PREDICTIONS, Prediction
from ..diffusion.noise import LAMBDA
from ..model_spec import ModelSpec
from .config import Range


@dataclass(frozen=True)
class ModelTable:
    """The [model] table: how the start file is inflated, and what is trained.

    Attributes:
        image_file: a MicroCinema image file with text encoder and VAE, needed where captions are tokens; or the Stable
            Diffusion file or folder whose VAE decodes sample sheets, if not `init_from`. Empty takes `init_from`.
        motion_from: published motion weights to start from, absolute or in $MICROCINEMA_HOME. Where `init_from` is a
            Stable Diffusion 1.x model, a file of AnimateDiff or PIA, which the temporal layers start from (and
            AppearNet from PIA's, where `injection` is "concat"). Where it is a 2.x model, a video model in ModelScope's
            layout, which the whole U-Net starts from (and AppearNet from DynamiCrafter's, where `injection` is
            "concat"). Empty starts the temporal layers anew.
        lambda_: `lambda` in TOML, of the Appearance Noise Prior (Eq. 3).
        injected_norm, injection, hidden, spade_norms, time_conditioned, text_conditioned: as in `UNetConfig` and
            `AppearNetConfig`, for the inflation of an image model.
        appearance_attention: as in `UNetConfig`; not of the paper. It is added to an image model, or to a base model
            that has none.
        prediction: "eps" or "v"; "auto" keeps that of the start file.
        zero_terminal_snr: true ends the noise schedule in pure noise, which needs v-prediction (Lin et al. 2023);
            "auto" keeps the start file's schedule.
        residual: 0 trains on the frames, as in the paper. Above 0 trains on their difference from the appearance
            latents divided by this number; best near that difference's standard deviation. -1 keeps the start file's.
        lora_rank: rank of the LoRA on the spatial transformers, learning-rate group `lora`; 0 for none.
        gradient_checkpointing: keep only the blocks' inputs and recompute the rest in the backward pass. This saves
            memory and makes a step cost four forward passes instead of three.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        "lambda_": (0, 1),
        "hidden": (1, 4096),
        "lora_rank": (0, 4096),
        "residual": (-1, 100),
    }
    ALIASES: ClassVar[dict[str, str]] = {
        "lambda_": "lambda_",
        "terminal": "zero_terminal_snr",
        "recompute": "gradient_checkpointing",
    }

    image_file: str = ""
    motion_from: str = ""
    lambda_: float = LAMBDA
    injected_norm: str = "frame"
    injection: str = "spade"
    hidden: int = 128
    spade_norms: str = "both"
    time_conditioned: bool = False
    text_conditioned: bool = False
    appearance_attention: bool = False
    prediction: Prediction | Literal["auto"] = "auto"
    zero_terminal_snr: bool | str = "auto"
    residual: float = -1.0
    lora_rank: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        # "sd" and "zero" are the values of the older key, `terminal`.
        object.__setattr__(self, "zero_terminal_snr", schedule_end(self.zero_terminal_snr))
        allowed: dict[str, tuple[Any, ...]] = {
            "prediction": ("auto", *PREDICTIONS),
            "injected_norm": ("frame", "clip"),
            "injection": INJECTIONS,
            "spade_norms": ("both", "out"),
        }
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise ValueError(f"model.{key} is {getattr(self, key)!r}; it is one of {', '.join(values)}")

    def spec(self, role: str, start: ModelSpec, *, fps: float, frames: int) -> ModelSpec:
        """Return the spec of the trained weights.

        This is the one place where "auto" and -1 take the values of the start file.

        Args:
            role: role of the trained weights.
            start: the spec of the start file.
            fps: lowest frame rate of the clips.
            frames: frames of a clip.
        """
        zero_terminal_snr = self.zero_terminal_snr
        return ModelSpec(
            role=role,
            lambda_=self.lambda_,
            fps=fps,
            frames=frames,
            prediction=start.prediction if self.prediction == "auto" else self.prediction,
            betas=start.betas,
            zero_terminal_snr=start.zero_terminal_snr
            if zero_terminal_snr == "auto"
            else bool(zero_terminal_snr),
            residual=start.residual if self.residual < 0 else self.residual,
            rates=start.rates,
            rescale=start.rescale,
        )


def schedule_end(value: bool | str) -> bool | str:
    """Return `zero_terminal_snr` as true, false or "auto"; "zero" and "sd" are earlier spellings.

    Raises:
        ValueError: any other value.
    """
    known: dict[bool | str, bool | str] = {
        True: True,
        False: False,
        "auto": "auto",
        "zero": True,
        "sd": False,
    }
    if not isinstance(value, bool | str) or value not in known:
        raise ValueError(
            f'model.zero_terminal_snr is {value!r}; it is true, false or "auto" ("zero" or "sd" as `terminal`)'
        )
    return known[value]


@dataclass(frozen=True)
class LossTable:
    """The [loss] table.

    Attributes:
        text_dropout, appearance_dropout: probability of dropping the text, and independently the appearance together
            with lambda.
        min_snr: gamma of min-SNR weighting (Hang et al. 2023; 5 is usual); 0 is the paper's plain loss.
        noise_offset: standard deviation of extra noise, one value per clip and channel; 0 for none.
        final_share: probability that a clip's timestep is drawn from the noisiest twentieth of the schedule alone; 0
            is the paper's uniform draw. Small frames show a subject's path through nearly any noise, so the caption
            decides it only at the noisy end, which a uniform draw seldom reaches.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("text_dropout", "appearance_dropout", "noise_offset", "final_share"), (0, 1)),
        "min_snr": (0, math.inf),
    }
    ALIASES: ClassVar[dict[str, str]] = {"drop_text": "text_dropout", "drop_appearance": "appearance_dropout"}

    text_dropout: float = 0.1
    appearance_dropout: float = 0.1
    min_snr: float = 0.0
    noise_offset: float = 0.0
    final_share: float = 0.0
