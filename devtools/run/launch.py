"""Run a script (ComfyUI's main.py) that ends with the process that started it, however that one ends.

The parent holds the other end of our standard input: when it is closed, nobody is left to stop us.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def _watch() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])  # noqa: PTH120
    runpy.run_path(sys.argv[0], run_name="__main__")
