"""python -m mini.train CONFIG.toml [...]: train a stage of the mini family; options as microcinema_core.train has."""

from __future__ import annotations

from microcinema_core.train.__main__ import main as train
from microcinema_core.train.processes import leave
from microcinema_core.train.stages import STAGES, Stages

from .stages import image, text, vae

MINI_STAGES: Stages = {"vae": vae.build, "text": text.build, "image": image.build, **STAGES}


def main(arguments: list[str] | None = None) -> int:
    """Train one stage; exit codes as those of `microcinema_core.train`."""
    return train(arguments, stages=MINI_STAGES, command="mini.train")


if __name__ == "__main__":
    leave(main())
