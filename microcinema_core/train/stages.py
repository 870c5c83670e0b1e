"""The stages that `microcinema_core.train` knows, by their name in a config."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..moved import command_of_stage
from .base import BaseStage
from .config import TrainConfig
from .stage import Stage
from .tsr import TSRStage

Stages = Mapping[str, Callable[[TrainConfig], Stage]]
"""Constructors of stages by name."""
STAGES: Stages = {"base": BaseStage, "tsr": TSRStage}


def build_stage(config: TrainConfig, stages: Stages = STAGES) -> Stage:
    """Build the stage that a config names.

    Raises:
        ValueError: the stage is not among `stages`, or its constructor rejects the config.
    """
    if config.stage not in stages:
        raise ValueError(
            f"stage is {config.stage!r}; it is one of {', '.join(stages)}{command_of_stage(config.stage)}"
        )
    return stages[config.stage](config)
