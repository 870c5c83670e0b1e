"""The data folder, `$MICROCINEMA_HOME`, and the files in it. Imports the standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HOME_VARIABLE = "MICROCINEMA_HOME"
HOST_VARIABLE = "COMFYUI_PATH"


def home_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Return `given`, or `$MICROCINEMA_HOME`, or `microcinema` in the user's cache folder."""
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


def tokenizer_folder(home: Path) -> Path:
    """Return the folder of ComfyUI's CLIP tokenizer, from `$COMFYUI_PATH` or from a ComfyUI in `home`.

    Raises:
        ValueError: there is no ComfyUI.
    """
    hosts = [Path(os.environ[HOST_VARIABLE]).expanduser()] if os.environ.get(HOST_VARIABLE) else []
    hosts += [folder for pattern in ("host", "hosts/*", "hosts/*/*") for folder in sorted(home.glob(pattern))]
    for host in hosts:
        if (found := host / "comfy" / "sd1_tokenizer").is_dir():
            return found
    raise ValueError(
        f"found no comfy/sd1_tokenizer under ${HOST_VARIABLE} or {home}; "
        "name the folder with --tokenizer, or a ComfyUI by COMFYUI_PATH"
    )
