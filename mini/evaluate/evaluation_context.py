"""What every measurement is given: the prepared test split, the models, I3D, and the settings that the table names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.diffusion.video_model import VideoModel
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.paths import emoji_folder, home_folder
from microcinema_core.metrics.bootstrap import key_weights
from microcinema_core.metrics.features import i3d_features
from microcinema_core.metrics.i3d import I3D
from microcinema_core.metrics.i3d_weights import get_i3d

from .mini_pipeline import MiniPipeline, Settings

RESAMPLES = 1000
BASE = Settings(steps=20, guidance_scale=2.0, gamma=0.065)  # the shipped workflows' own, as TSR's
TSR = Settings(steps=3, guidance_scale=1.0)


@dataclass
class EvaluationContext:
    """Files of the three roles, and how the models are asked.

    a_key: clips of each motion key. subjects: centre frames that are asked for all six motions.
    base_settings, tsr_settings: DDIM's steps and guidance, and gamma, for each.
    dtype: of the video models and of I3D's trunk.
    """

    image_file: Path
    base_file: Path
    tsr_file: Path
    a_key: int = 4
    subjects: int = 48
    base_settings: Settings = BASE
    tsr_settings: Settings = TSR
    dtype: torch.dtype = torch.bfloat16
    say: Callable[[str], None] = field(default=lambda text: None)

    @cached_property
    def home(self) -> Path:
        return home_folder()

    @cached_property
    def emoji(self) -> Path:
        return emoji_folder(self.home)

    @cached_property
    def family(self) -> MiniPipeline:
        return MiniPipeline.read(self.image_file)

    @cached_property
    def base(self) -> VideoModel:
        return VideoModel.from_checkpoint(
            read_checkpoint(self.base_file, expect_roles=("base",)), dtype=self.dtype
        )

    @cached_property
    def tsr(self) -> VideoModel:
        return VideoModel.from_checkpoint(
            read_checkpoint(self.tsr_file, expect_roles=("tsr",)), dtype=self.dtype
        )

    @cached_property
    def i3d(self) -> I3D:
        return get_i3d(self.home).fast(self.dtype)

    def features(self, clips: Tensor) -> Tensor:
        """I3D-K400 logits of pictures `n f c h w`."""
        return i3d_features(self.i3d, clips)

    def resamples(self, keys: Sequence[str]) -> Tensor:
        """(resamples, n) multiplicities of clips."""
        return key_weights(keys, RESAMPLES, seed=0)
