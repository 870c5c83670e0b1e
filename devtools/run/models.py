"""`dev.py models`: which files each shipped workflow needs, and whether your ComfyUI has them."""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microcinema_core import json_text

from ..release.gallery.models import PUBLISHED, SIZES
from .home import ROOT, Problem, home, say
from .host import VERSION, Host, find_host
from .pip import python_in
from .workflow import NOTE_NODES

WORKFLOWS = ROOT / "workflows"
ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth")
READ_FROM = {
    "CheckpointLoaderSimple": ("checkpoints",),
    "MicroCinemaCheckpointLoader": ("microcinema", "diffusion_models"),
    "MicroCinemaInflate": ("checkpoints", "diffusion_models"),
    "MicroCinemaCrafterLoader": ("checkpoints", "diffusion_models"),
    "MicroCinemaMotionLoader": ("animatediff_models", "controlnet", "animatediff_motion_lora"),
}
"""Folders in `models` from which nodes read files without a public address; any folder for other nodes."""
Folders = Mapping[str, list[str]]
"""Folders on disk by their name in `models`."""
OWN_FOLDERS = ("microcinema", "animatediff_models", "animatediff_motion_lora")
"""Folders in `models` that the pack adds to ComfyUI's own."""

_PROBE = """
import json, os, sys
host = sys.argv[1]
sys.path.insert(0, host)
sys.argv = sys.argv[:1]
import folder_paths
extra = os.path.join(host, "extra_model_paths.yaml")
if os.path.isfile(extra):
    from utils.extra_config import load_extra_path_config
    load_extra_path_config(extra)
print(json.dumps({"": folder_paths.models_dir,
                  **{key: list(found[0]) for key, found in folder_paths.folder_names_and_paths.items()}}))
"""
"""Prints the host's model folders, with those of its extra_model_paths.yaml; it starts no server."""


@dataclass(frozen=True)
class Need:
    """A file that a workflow names.

    Attributes:
        name: the file's name, as in the workflow.
        folders: the folders in `models` that it may be in; any folder if there are none.
        url: its public address; empty where there is none.
    """

    name: str
    folders: tuple[str, ...] = ()
    url: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dev.py models`: there are none of its own."""


def main(arguments: argparse.Namespace) -> None:
    """Print for each shipped workflow that it is ready, or what it lacks; nothing is downloaded or started."""
    host = present_host(arguments.comfyui)
    folders = model_folders(host, arguments.venv)
    print(f"ComfyUI {host.version} in {host.path}\n")
    for file in sorted(WORKFLOWS.glob("*.json")):
        needs = needed_files(json.loads(file.read_text(encoding="utf-8")))
        print("\n".join(report(file.stem, needs, folders)))
    print("\ndocs/models.md says what the files are, and which others you can choose.")


def present_host(given: str | None) -> Host:
    """Return the ComfyUI to look at: as `find_host`, but none is fetched.

    Raises:
        Problem: there is none.
    """
    around = ROOT.parent.parent if ROOT.parent.name == "custom_nodes" else home() / "hosts" / VERSION
    is_there = any((folder / "main.py").is_file() for folder in (around, home() / "hosts" / VERSION))
    if not (given or os.environ.get("COMFYUI_PATH") or is_there):
        raise Problem("No ComfyUI was found: name its folder with --comfyui PATH.")
    return find_host(given)


def model_folders(host: Host, venv: str | None = None) -> Folders:
    """Return a ComfyUI's model folders by their name, with the pack's own weights and those of its configuration."""
    found = next((folders for python in _pythons(venv) if (folders := _probe(python, host))), None)
    if found is None:
        say("ComfyUI's configuration cannot be read: only its own models folder is searched.")
        found = {"": str(host.path / "models")}
    root = Path(found.pop(""))
    for folder in {*OWN_FOLDERS, *_subfolders(root)}:
        found.setdefault(folder, []).append(str(root / folder))
    found["microcinema"].append(str(ROOT / "weights"))
    if host.ours:  # dev.py serve shows these too
        for folder in _subfolders(home() / "models"):
            found.setdefault(folder, []).append(str(home() / "models" / folder))
    return found


def needed_files(workflow: Mapping[str, Any]) -> list[Need]:
    """Return the files that a workflow's nodes name, each once."""
    needs: dict[str, Need] = {}
    for node in _nodes(workflow):
        for model in (node.get("properties") or {}).get("models", []):
            needs[model["name"]] = Need(model["name"], (model["directory"],), model["url"])
    for node in _nodes(workflow):
        for name in _file_names(node):
            if name in PUBLISHED:
                needs.setdefault(name, Need(name, (PUBLISHED[name][0],), PUBLISHED[name][1]))
            read_from = READ_FROM.get(node["type"], ())
            need = needs.setdefault(name, Need(name, read_from))
            if common := tuple(folder for folder in need.folders if folder in read_from):
                needs[name] = Need(name, common, need.url)
    return list(needs.values())


def state_of(need: Need, folders: Folders) -> str:
    """Return what is wrong with a needed file, or an empty string if it is there and whole."""
    searched = [Path(path) for folder in need.folders or folders for path in folders.get(folder, [])]
    there = [path for folder in searched if (path := folder / need.name).is_file()]
    if there:
        return "" if any(_is_whole(path) for path in there) else "broken: its download was not finished"
    for folder in searched:
        for path in sorted(folder.rglob(need.name)):
            if path.is_file() and _is_whole(path):
                return f"in a subfolder: choose {path.relative_to(folder).as_posix()} in the node"
    return "missing"


def report(name: str, needs: list[Need], folders: Folders) -> list[str]:
    """Return the lines about one workflow."""
    lacks = [(need, state) for need in needs if (state := state_of(need, folders))]
    if not lacks:
        return [f"{name}: ready"]
    lines = [f"{name}: lacks {len(lacks)} of {len(needs)} {'file' if len(needs) == 1 else 'files'}"]
    for need, state in lacks:
        place = f"models/{' or '.join(need.folders) or '...'}/{need.name}"
        size = f", {SIZES[need.name]}" if need.name in SIZES else ""
        address = need.url or "no public address: the note in the workflow says what to choose"
        lines += [f"    {place} ({state}{size})", f"        {address}"]
    return lines


def _nodes(workflow: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield all nodes of a workflow, with those inside its subgraphs."""
    yield from workflow["nodes"]
    for subgraph in (workflow.get("definitions") or {}).get("subgraphs") or []:
        yield from subgraph["nodes"]


def _file_names(node: Mapping[str, Any]) -> list[str]:
    """Return the names of model files among a node's values."""
    if node["type"] in NOTE_NODES:
        return []
    values = node.get("widgets_values") or []
    values = values.values() if isinstance(values, Mapping) else values
    return [value for value in values if isinstance(value, str) and value.lower().endswith(ENDINGS)]


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _pythons(venv: str | None) -> Iterator[Path]:
    """Yield interpreters that may read ComfyUI's configuration, which needs PyYAML if it names further folders."""
    given = venv or os.environ.get("MICROCINEMA_VENV")
    if given:
        yield python_in(Path(given).expanduser().absolute())
    yield Path(sys.executable)
    for ready in sorted((home() / "envs").glob("*/ready.json")):
        yield python_in(ready.parent)


def _probe(python: Path, host: Host) -> dict[str, Any] | None:
    """Return what `_PROBE` prints in this interpreter, or None if it fails there."""
    command = [str(python), "-s", "-c", _PROBE, str(host.path)]
    try:
        run = subprocess.run(command, cwd=host.path, capture_output=True, text=True, timeout=60)
        return dict(json.loads(run.stdout.splitlines()[-1])) if run.returncode == 0 else None
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _is_whole(path: Path) -> bool:
    """Return whether a file has the size that its header states; formats without one need only not be empty."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return size > 0
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json_text.loads(file.read(min(length, size)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False
    return bool(size == 8 + length + max(ends, default=0))
