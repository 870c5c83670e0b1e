"""Measure one load or one start in a new host process.

The command is `python -m benchmarks.fresh_host ours|stock|import [FILE]`.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from devtools.check.conformance.boot import boot
from devtools.run.home import ROOT
from devtools.run.host import find_host
from devtools.run.server import PACK, link_folder
from microcinema_core.train.memory import anonymous_bytes

GIB = 2**30


def load(kind: str, path: Path) -> dict[str, float]:
    """Load a file in a new host; return seconds, and the peak growth of anonymous memory in GiB.

    `--fp16-unet` makes the host keep float16 weights, as on a GPU; on a CPU it would convert them to float32.
    """
    boot(find_host(os.environ.get("COMFYUI_PATH")).path, ["--fp16-unet"])
    import comfy.sd  # type: ignore[import-not-found]

    from microcinema_core import adapter

    most, done, before = [anonymous_bytes()], threading.Event(), anonymous_bytes()

    def watch() -> None:
        while not done.wait(0.005):
            most.append(anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    kept: Any = adapter.load_checkpoint(path) if kind == "ours" else comfy.sd.load_diffusion_model(str(path))
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    growth = max([*most, anonymous_bytes()]) - before
    del kept
    return {"seconds": seconds, "gib": growth / GIB}


def start_up() -> dict[str, float]:
    """Return the seconds that the pack adds to a started host: import, and the list of its nodes."""
    boot(find_host(os.environ.get("COMFYUI_PATH")).path)
    with tempfile.TemporaryDirectory() as folder:
        link_folder(ROOT, Path(folder) / PACK)
        sys.path.insert(0, folder)
        started = time.perf_counter()
        extension = asyncio.run(importlib.import_module(PACK).comfy_entrypoint())
        asyncio.run(extension.get_node_list())
        return {"seconds": time.perf_counter() - started}


if __name__ == "__main__":
    given = sys.argv[1:]
    found = start_up() if given[0] == "import" else load(given[0], Path(given[1]))
    sys.stdout.write(json.dumps(found))
