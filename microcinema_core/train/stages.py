"""The stages that this command trains, by the name that a config gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import base, tsr
from .config import TrainConfig
from .stage import Stage

Stages = Mapping[str, Callable[[TrainConfig], Stage]]
STAGES: Stages = {"base": base.build, "tsr": tsr.build}


def build_stage(config: TrainConfig, stages: Stages = STAGES) -> Stage:
    """The stage that a config names.

    Raises:
        ValueError: a stage that is not among `stages`, or whatever its own builder finds wrong in the config.
    """
    if config.stage not in stages:
        raise ValueError(f"stage is {config.stage!r}; it is one of {', '.join(stages)}")
    return stages[config.stage](config)
