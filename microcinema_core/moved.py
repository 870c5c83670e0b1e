"""Commands that have another address since 0.2.0. Goes with 0.3.0."""

from __future__ import annotations

import sys

MOVED = {
    "microcinema_core.evaluate": "mini.evaluate",
    "microcinema_core.evaluate.ablations": "mini.evaluate.ablations",
    "microcinema_core.evaluate.heard": "mini.evaluate.caption_sensitivity",
    "microcinema_core.data.captions": "mini.world.captions",
    "microcinema_core.data.emoji": "mini.world.emoji",
    "microcinema_core.data.encode": "mini.world.encode",
    "microcinema_core.data.subset": "mini.world.subset",
    "microcinema_core.data.vocabulary": "mini.world.vocabulary",
    "microcinema_core.train.psnr": "mini.evaluate.psnr",
    "microcinema_core.train.show": "microcinema_core.train.compare_to_baseline",
}


def stop_at_a_moved_command() -> None:
    """End `python -m MODULE` for a module of `MOVED` with one line that names the new address, exit code 2.

    Python imports the package before it looks for the module, with "-m" as the program's name.
    """
    if sys.argv[:1] != ["-m"]:
        return
    asked = next((name for name in sys.orig_argv if name in MOVED), None)
    if asked:
        sys.stderr.write(f"python -m {asked} has moved: run python -m {MOVED[asked]}\n")
        raise SystemExit(2)
