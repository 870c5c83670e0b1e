"""New addresses of commands, configs and stages that moved in 0.2.0. To be removed in 0.3.0."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

MOVED = {
    "microcinema_core.evaluate": "mini.evaluate",
    "microcinema_core.evaluate.ablations": "mini.evaluate.ablations",
    "microcinema_core.evaluate.heard": "mini.evaluate.caption_sensitivity",
    "microcinema_core.data.captions": "mini.world.captions",
    "microcinema_core.data.emoji": "mini.world.emoji",
    "microcinema_core.data.encode": "mini.world.encode",
    "microcinema_core.data.subset": "mini.world.subset",
    "microcinema_core.data.vocabulary": "mini.world.subjects",
    "microcinema_core.train.psnr": "mini.evaluate.vae",
    "microcinema_core.train.show": "microcinema_core.train.compare_to_baseline",
}


def stop_at_a_moved_command(moved: Mapping[str, str]) -> None:
    """End `python -m OLD` with exit code 2 and one line that names the new address.

    Called by a package's `__init__`: Python imports the package before it looks for the module, and `sys.argv[0]` is
    "-m" until then.

    Args:
        moved: the new module by the old one.
    """
    if sys.argv[:1] != ["-m"] or len(sys.orig_argv) <= len(sys.argv):
        return
    old = sys.orig_argv[-len(sys.argv)]  # sys.argv has "-m" in place of the module's name
    if old.startswith("-"):  # -mNAME
        old = old.partition("m")[2]
    if old in moved:
        sys.stderr.write(f"python -m {old} has moved: run python -m {moved[old]}{_where(moved[old])}\n")
        raise SystemExit(2)


def _where(module: str) -> str:
    """Return where a module is to be had, if the archive that users install does not hold it."""
    return "" if module.startswith("microcinema_core") else " in a clone of the repository"


def address_of_config(path: str | Path) -> str:
    """Return the end of an error message about a missing config that moved, or an empty string."""
    name = Path(path).name
    return (
        f"; {name} is now mini/configs/{name}, for python -m mini.train{_where('mini')}"
        if name.startswith("mini_")
        else ""
    )


def command_of_stage(stage: str) -> str:
    """Return the end of an error message about a stage that another command trains now, or an empty string."""
    return (
        f"; {stage!r} is now trained by python -m mini.train{_where('mini')}"
        if stage in ("vae", "text", "image")
        else ""
    )
