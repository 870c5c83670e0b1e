"""Train one stage of the mini models: `python -m mini.train CONFIG.toml`.

Options are those of `python -m microcinema_core.train`.
"""

from __future__ import annotations

from microcinema_core.data.shards import MissingSetError
from microcinema_core.train.__main__ import main as train
from microcinema_core.train.processes import exit_process
from microcinema_core.train.stages import STAGES, Stages

from .stages import image, text, vae

MINI_STAGES: Stages = {"vae": vae.build, "text": text.build, "image": image.build, **STAGES}


def explain(error: Exception) -> str:
    """Return an error's sentence; for a missing set, with the command that makes it."""
    if isinstance(error, MissingSetError):
        return f"{error}; `python -m mini.world.encode {error.folder.name}` makes the mini models' sets"
    return str(error)


def main(arguments: list[str] | None = None) -> int:
    """Run `microcinema_core.train` with the stages of the mini models as well; returns its exit code."""
    return train(arguments, stages=MINI_STAGES, command="mini.train", explain=explain)


if __name__ == "__main__":
    exit_process(main())
