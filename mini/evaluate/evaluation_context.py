"""What all sections share: the prepared emoji, the models, I3D, and the settings behind the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.diffusion.video_model import VideoModel
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_video_model
from microcinema_core.files.paths import home_folder
from microcinema_core.metrics.bootstrap import key_weights
from microcinema_core.metrics.i3d import I3D, i3d_features
from microcinema_core.metrics.i3d_weights import get_i3d

from ..world.emoji import emoji_folder
from .mini_pipeline import DDIMSettings, MiniPipeline

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights"
RESAMPLES = 1000
BASE = DDIMSettings(steps=10, guidance_scale=1.0, gamma=0.04)
"""The base model's settings in the shipped workflows."""
TSR = DDIMSettings(steps=3, guidance_scale=1.0)
"""The TSR model's settings in the shipped workflows."""


@dataclass
class EvaluationContext:
    """Model files, test data, metrics and settings of an evaluation; everything is loaded when it is first used.

    Attributes:
        image_file, base_file, tsr_file: MicroCinema files of the three roles.
        split: split of the emoji: `validation`, for every choice, or `test`, at the end.
        out_folder: folder of results and sample sheets; None takes $MICROCINEMA_HOME/evaluation.
        clips_per_key: evaluation clips of each motion key.
        subjects: centre frames that are animated with all six motions.
        base_settings, tsr_settings: sampler settings of the two video models.
        dtype: precision of the video models and of I3D's trunk.
        log: function that is called with a line of text to report progress.
    """

    image_file: Path
    base_file: Path
    tsr_file: Path
    split: str = "validation"
    out_folder: Path | None = None
    clips_per_key: int = 4
    subjects: int = 48
    base_settings: DDIMSettings = BASE
    tsr_settings: DDIMSettings = TSR
    dtype: torch.dtype = torch.bfloat16
    log: Callable[[str], None] = field(default=lambda text: None)

    @cached_property
    def out(self) -> Path:
        """The folder of results and sample sheets."""
        folder = self.out_folder or self.home / "evaluation"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def home(self) -> Path:
        """`$MICROCINEMA_HOME`."""
        return home_folder()

    @cached_property
    def emoji(self) -> Path:
        """The folder of the prepared emoji."""
        return emoji_folder(self.home)

    @cached_property
    def pipeline(self) -> MiniPipeline:
        """Text encoder and VAE, from the image file."""
        return MiniPipeline.read(self.image_file)

    @cached_property
    def base(self) -> VideoModel:
        """The base model, which makes key frames."""
        return self._video_model(self.base_file, "base")

    @cached_property
    def tsr(self) -> VideoModel:
        """The TSR model, which interpolates."""
        return self._video_model(self.tsr_file, "tsr")

    def _video_model(self, file: Path, role: str) -> VideoModel:
        return load_video_model(read_checkpoint(file, expect_roles=(role,)), dtype=self.dtype)

    @cached_property
    def i3d(self) -> I3D:
        """I3D, downloaded at its first use."""
        return get_i3d(self.home).fast(self.dtype)

    def features(self, clips: Tensor) -> Tensor:
        """Return I3D-K400 logits `n 400` of pictures `n f c h w` in [-1, 1]."""
        return i3d_features(self.i3d, clips)

    def resamples(self, keys: Sequence[str]) -> Tensor:
        """Return multiplicities (resamples, n) of clips with these motion keys, for bootstrap intervals."""
        return key_weights(keys, RESAMPLES, seed=0)
