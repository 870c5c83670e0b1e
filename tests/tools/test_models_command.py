"""`dev.py models`: a file counts only where ComfyUI looks for it, under its own name, and whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from devtools.release.gallery.models import PUBLISHED, SIZES
from devtools.run import models
from devtools.run.home import ROOT, Problem
from devtools.run.host import Host
from devtools.run.models import Need, model_folders, needed_files, report, state_of

NEED = Need("net.safetensors", ("checkpoints",), "https://example.org/net.safetensors")
FOLDER_PATHS = """
import os
models_dir = os.path.join(os.path.dirname(os.path.abspath(__file__)), "models")
names = ("checkpoints", "loras", "controlnet")
folder_names_and_paths = {name: ([os.path.join(models_dir, name)], set()) for name in names}
def add(key, path):
    folder_names_and_paths.setdefault(key, ([], set()))[0].append(path)
"""
EXTRA_CONFIG = """
import folder_paths
def load_extra_path_config(path):
    for line in open(path):
        folder_paths.add(*line.strip().split(": "))
"""


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like ComfyUI, with the two modules that say where models are."""
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.delenv("MICROCINEMA_VENV", raising=False)
    folder = tmp_path / "ComfyUI"
    for name in ("comfy", "utils", "models/checkpoints/sub", "models/loras"):
        (folder / name).mkdir(parents=True)
    (folder / "main.py").write_text("raise SystemExit('no server is started')\n")
    (folder / "comfyui_version.py").write_text('__version__ = "1.2.3"\n')
    (folder / "folder_paths.py").write_text(FOLDER_PATHS)
    (folder / "utils" / "extra_config.py").write_text(EXTRA_CONFIG)
    return folder


def net(path: Path) -> Path:
    """Write a small whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weight": torch.zeros(100)}, str(path), metadata={"format": "pt"})
    return path


def state(comfyui: Path, need: Need = NEED) -> str:
    return state_of(need, model_folders(Host(comfyui, "test", ours=False)))


def test_a_file_is_there_only_in_its_folder_under_its_name(comfyui: Path) -> None:
    assert state(comfyui) == "missing"
    net(comfyui / "models" / "loras" / NEED.name)
    net(comfyui / "models" / "checkpoints" / "other.safetensors")
    (comfyui / "models" / "checkpoints" / f"{NEED.name}.part").write_bytes(b"1")
    assert state(comfyui) == "missing"
    file = comfyui / "models" / "checkpoints" / NEED.name
    file.mkdir()
    assert state(comfyui) == "missing"
    file.rmdir()
    file.symlink_to(comfyui / "gone")
    assert state(comfyui) == "missing"
    file.unlink()
    net(file)
    assert state(comfyui) == ""


@pytest.mark.parametrize("kept", [0, 4, 20, -1])
def test_half_a_download_is_broken(kept: int, comfyui: Path) -> None:
    file = net(comfyui / "models" / "checkpoints" / NEED.name)
    file.write_bytes(file.read_bytes()[:kept])
    assert state(comfyui).startswith("broken")


def test_a_file_in_a_subfolder_has_another_name_in_the_node(comfyui: Path) -> None:
    file = net(comfyui / "models" / "checkpoints" / "sub" / NEED.name)
    assert "choose sub/net.safetensors in the node" in state(comfyui)
    file.write_bytes(b"")
    assert state(comfyui) == "missing"


def test_folders_of_the_configuration_count(comfyui: Path, tmp_path: Path) -> None:
    net(tmp_path / "elsewhere" / NEED.name)
    assert state(comfyui) == "missing"
    (comfyui / "extra_model_paths.yaml").write_text(f"checkpoints: {tmp_path / 'elsewhere'}\n")
    assert state(comfyui) == ""


def test_without_the_configuration_the_models_folder_is_searched(
    comfyui: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (comfyui / "folder_paths.py").write_text("raise ImportError\n")
    assert state(comfyui) == "missing"
    assert "only its own models folder is searched" in capsys.readouterr().err
    net(comfyui / "models" / "checkpoints" / NEED.name)
    assert state(comfyui) == ""


def test_the_packs_own_folders_and_weights_count(comfyui: Path) -> None:
    shipped = next((ROOT / "weights").glob("mini_*.safetensors"))
    assert state(comfyui, Need(shipped.name, ("microcinema",))) == ""
    motion = Need("motion.safetensors", ("animatediff_models",))
    assert state(comfyui, motion) == "missing"
    net(comfyui / "models" / "animatediff_models" / motion.name)
    assert state(comfyui, motion) == ""


def test_needs_are_what_the_nodes_name() -> None:
    node = {"type": "CheckpointLoaderSimple", "widgets_values": ["net.safetensors", 3]}
    published = {"name": NEED.name, "directory": NEED.folders[0], "url": NEED.url}
    inner = {"type": "LoraLoader", "widgets_values": {"lora": "style.ckpt", "text": "a fox"}}
    note = {"type": "MarkdownNote", "widgets_values": ["get this.safetensors"]}
    workflow = {
        "nodes": [node, {**node, "properties": {"models": [published]}}, note],
        "definitions": {"subgraphs": [{"nodes": [inner]}]},
    }
    assert needed_files(workflow) == [NEED, Need("style.ckpt")]
    inflate = {"type": "MicroCinemaInflate", "widgets_values": ["own.safetensors"]}
    load = {"type": "CheckpointLoaderSimple", "widgets_values": ["own.safetensors"]}
    for nodes in ([inflate, load], [load, inflate]):
        assert needed_files({"nodes": nodes}) == [Need("own.safetensors", ("checkpoints",))]
    name = "mm_sd15_v3.safetensors"
    loader = {"type": "MicroCinemaMotionLoader", "widgets_values": [name]}
    assert needed_files({"nodes": [loader]}) == [Need(name, (PUBLISHED[name][0],), PUBLISHED[name][1])]


def test_every_shipped_workflow_tells_the_folder_of_each_file() -> None:
    files = list((ROOT / "workflows").glob("*.json"))
    needs = [need for file in files for need in needed_files(json.loads(file.read_text("utf-8")))]
    assert needs and not [need.name for need in needs if not need.folders]


def test_the_report_names_folder_size_and_address(comfyui: Path) -> None:
    folders = model_folders(Host(comfyui, "test", ours=False))
    name = "mm_sd15_v3.safetensors"
    needs = [Need(name, (PUBLISHED[name][0],), PUBLISHED[name][1]), NEED]
    text = "\n".join(report("graph", needs, folders))
    assert text.startswith("graph: lacks 2 of 2 files\n") and "ready" not in text
    assert f"models/animatediff_models/{name} (missing, {SIZES[name]})" in text
    assert PUBLISHED[name][1] in text and NEED.url in text
    net(comfyui / "models" / "checkpoints" / NEED.name)
    assert report("graph", needs, folders)[0] == "graph: lacks 1 of 2 files"
    assert report("graph", [NEED], folders) == ["graph: ready"]


def test_the_command_prints_every_workflow(comfyui: Path) -> None:
    command = [sys.executable, "-S", str(ROOT / "dev.py"), "--comfyui", str(comfyui), "models"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == f"ComfyUI 1.2.3 in {comfyui}"
    for file in (ROOT / "workflows").glob("*.json"):
        (line,) = (line for line in lines if line.startswith(f"{file.stem}: "))
        own = "(mini)" in file.stem and "Upscaled" not in file.stem
        assert line.endswith(": ready") == own, line


def test_without_a_comfyui_none_is_fetched(comfyui: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_host", lambda given: pytest.fail("ComfyUI would be fetched"))
    if ROOT.parent.name == "custom_nodes":
        pytest.skip("this checkout is inside a ComfyUI")
    with pytest.raises(Problem, match="--comfyui PATH"):
        models.present_host(None)


def test_names_in_the_table_are_what_a_browser_saves() -> None:
    for name, (_, url) in PUBLISHED.items():
        assert url.startswith("https://") and "#" not in url
        assert "civitai" in url or url.endswith(f"/{name}")
    assert set(SIZES) <= set(PUBLISHED)
