"""Where data lives: everything under `$MICROCINEMA_HOME`, outside the checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HOME_VARIABLE = "MICROCINEMA_HOME"


def home_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """`given`, else `$MICROCINEMA_HOME`, else `microcinema` in the user's cache directory."""
    chosen = given or os.environ.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "microcinema"


def emoji_folder(home: Path) -> Path:
    """Decoded emoji: `catalogue.jsonl` and `frames/<id>.npy`."""
    return home / "emoji"
