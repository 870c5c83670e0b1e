"""Where weight files are looked for: `models/microcinema`, the pack's own `weights`, and the host's own
folders.
"""

from __future__ import annotations

from pathlib import Path

from .host import folder_paths

FOLDER_KEY = "microcinema"
SHIPPED_WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


def register_folders() -> None:
    """Tell the host about `models/microcinema` and the pack's own weights, both under one key; nothing is
    listed.
    """
    folder_paths.add_model_folder_path(FOLDER_KEY, str(Path(folder_paths.models_dir) / FOLDER_KEY))
    folder_paths.add_model_folder_path(FOLDER_KEY, str(SHIPPED_WEIGHTS))


def list_files(*keys: str) -> list[str]:
    """Return the safetensors files under the host's folder keys, each name once, in order."""
    names = (name for key in keys for name in folder_paths.get_filename_list(key))
    return list(dict.fromkeys(name for name in names if name.endswith(".safetensors")))


def find_file(name: str, *keys: str) -> Path:
    """Return the path of a listed file or diffusers folder; `ValueError` names the folders that were
    searched.
    """
    for key in keys:
        path = folder_paths.get_full_path(key, name)
        if path is not None:
            return Path(path)
        for folder in folder_paths.get_folder_paths(key):
            if (Path(folder) / name / "model_index.json").is_file():
                return Path(folder) / name
    searched = ", ".join(folder for key in keys for folder in folder_paths.get_folder_paths(key))
    raise ValueError(f"{name}: no such file in {searched}.")


def list_diffusers_folders() -> list[str]:
    """Return the diffusers folders directly under the host's `models/diffusers`."""
    folders = (Path(folder) for folder in folder_paths.get_folder_paths("diffusers"))
    return sorted(path.parent.name for folder in folders for path in folder.glob("*/model_index.json"))
