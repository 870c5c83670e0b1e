"""The networks of the stages `base` and `tsr`: the [model] table, the file that training starts from, what is built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from ..config import INJECTIONS, AppearNetConfig, UNetConfig
from ..diffusion.noise import LAMBDA
from ..diffusion.schedule import Prediction, Terminal
from ..diffusion.video_model import VideoModel
from ..files.checkpoint import Checkpoint, read_checkpoint
from ..files.inflate import config_of, guess_prediction
from ..files.metadata import PREDICTIONS, TERMINALS
from ..files.safetensors_io import read_header
from ..files.stable_diffusion import read_unet
from ..networks.appearnet import AppearNet
from ..networks.layers import attention, short_attention
from ..networks.text import TextEncoder
from ..networks.unet import UNet3D
from ..networks.vae import FoldedVAE
from .latents import load_text, load_vae, not_exported
from .preview import LinearPreview, VAEPreview, preview_of
from .recompute import recompute_blocks
from .tables import Range


@dataclass(frozen=True)
class ModelTable:
    """The [model] table; most of it describes inflation.

    image_file: a MicroCinema image file with text encoder and VAE, needed where the set's captions are tokens; or the
        Stable Diffusion file or folder whose VAE decodes the sheets, where that is not `init_from`. Without any VAE
        sheets show a linear preview of the latents.
    prediction: "auto" is what the file that training starts from predicts.
    terminal: "auto" is the noise schedule of that file; "zero" ends in pure noise and needs v.
    residual: 0 makes the frames, as the paper; a greater number their difference from what AppearNet sees, divided by
        that number, which is best about that difference's standard deviation. -1 is as the file that training starts
        from was trained.
    lora_rank: of the low-rank additions to the spatial attention, group `lora`; 0 makes none.
    recompute: blocks keep their input alone and are run again in the backward pass: less memory, a third more work.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        "lambda_": (0, 1),
        "hidden": (1, 4096),
        "lora_rank": (0, 4096),
        "residual": (-1, 100),
    }

    image_file: str = ""
    lambda_: float = LAMBDA
    injected_norm: str = "frame"
    injection: str = "spade"
    hidden: int = 128
    spade_norms: str = "both"
    time_conditioned: bool = False
    text_conditioned: bool = False
    prediction: Prediction | Literal["auto"] = "auto"
    terminal: Terminal | Literal["auto"] = "auto"
    residual: float = -1.0
    lora_rank: int = 0
    recompute: bool = False

    def __post_init__(self) -> None:
        allowed = {
            "prediction": ("auto", *PREDICTIONS),
            "terminal": ("auto", *TERMINALS),
            "injected_norm": ("frame", "clip"),
            "injection": INJECTIONS,
            "spade_norms": ("both", "out"),
        }
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise ValueError(f"model.{key} is {getattr(self, key)!r}; it is one of {', '.join(values)}")


@dataclass
class Networks:
    """The video model, which is trained, and the frozen two; without an image file there is no text encoder."""

    video: VideoModel
    text: TextEncoder | None
    vae: FoldedVAE | LinearPreview | VAEPreview

    @classmethod
    def build(
        cls,
        model: ModelTable,
        unet: UNetConfig,
        appearnet: AppearNetConfig,
        first: Checkpoint,
        pictures: Path,
        device: str | None = None,
    ) -> Networks:
        """Trained networks at their constructors' weights, on a device; frozen ones from the file `pictures`."""
        attend = attention if torch.cuda.is_available() else short_attention
        prediction = first.prediction if model.prediction == "auto" else model.prediction
        terminal = first.terminal if model.terminal == "auto" else model.terminal
        residual = first.residual if model.residual < 0 else model.residual
        video = VideoModel(
            UNet3D(unet, attend=attend, device=device),
            AppearNet(appearnet, attend=attend, device=device),
            model.lambda_,
            prediction,
            terminal,
            residual,
        )
        if model.recompute:
            recompute_blocks(video.unet, video.appearnet)
        if not model.image_file or is_foreign(pictures):
            return cls(video, None, preview_of(pictures))
        image = read_checkpoint(pictures, expect_roles=("image",))
        return cls(video, load_text(image), load_vae(image))


def own_configs(model: ModelTable, first: Checkpoint) -> tuple[UNetConfig, AppearNetConfig]:
    """The shapes that a base or TSR file brings."""
    return UNetConfig.from_dict(first.configs["unet"]), AppearNetConfig.from_dict(first.configs["appearnet"])


def is_foreign(path: Path) -> bool:
    """Whether this is a diffusers folder or a file that is not MicroCinema's."""
    if path.is_dir():
        return True
    return path.is_file() and "microcinema.format" not in read_header(path).get("__metadata__", {})


def read_first(path: Path, roles: tuple[str, ...]) -> Checkpoint:
    """The file that training starts from: MicroCinema's, or where an image model will do, Stable Diffusion's."""
    if not path.exists():  # a model in parts is a folder
        raise not_exported(path)
    if "image" not in roles or not is_foreign(path):
        return read_checkpoint(path, expect_roles=roles)
    spatial, said = read_unet(path)
    try:
        config = config_of(spatial)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return Checkpoint(
        parts={"unet": spatial}, role="image", configs={"unet": config.to_dict()}, lambda_=0.0, fps=0.0, frames=1,
        prediction=said or guess_prediction(spatial), name=path.name,
    )  # fmt: skip
