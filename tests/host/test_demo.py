"""`dev.py demo` from outside: the JSON line, errors as one sentence, and no server left however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw

from devtools.run.client import ComfyClient, HostError
from devtools.run.home import ROOT, Problem
from devtools.run.host import Host
from devtools.run.server import ComfyServer
from devtools.run.upscaler import FILE_NAME, fetch_upscaler

pytestmark = pytest.mark.slow

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import dev
from devtools.run import demo
demo.TEXT_WORKFLOW = Path({workflow!r})
sys.exit(dev.main())
"""


def stub(frames: int, *, blur: bool = False) -> dict:
    """A workflow of stock nodes only, in the front end's format: blank frames, saved as a video."""
    size = 1024 if blur else 64
    nodes = [
        {"id": 1, "type": "EmptyImage", "widgets_values": [size, size, frames, 255]},
        {"id": 2, "type": "ImageBlur", "widgets_values": [3, 1.0], "inputs": [{"name": "image", "link": 1}]},
        {"id": 3, "type": "CreateVideo", "widgets_values": [8.0], "inputs": [{"name": "images", "link": 2}]},
        {
            "id": 4,
            "type": "SaveVideo",
            "widgets_values": ["video/stub", "mp4", "h264"],
            "inputs": [{"name": "video", "link": 3}],
        },
    ]
    return {
        "nodes": nodes,
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"], [3, 3, 0, 4, 0, "VIDEO"]],
    }


@pytest.fixture
def start(comfyui: Host, tmp_path: Path):
    """Return a function that starts the demo with a given graph; every demo is stopped afterwards."""
    started: list[subprocess.Popen[str]] = []

    def begin(graph: dict, *options: str) -> subprocess.Popen[str]:
        workflow = tmp_path / "graph.json"
        workflow.write_text(json.dumps(graph))
        code = RUN.format(root=str(ROOT), workflow=str(workflow))
        command = [sys.executable, "-c", code, "demo", "--out", str(tmp_path / "out"), *options]
        environ = {**os.environ, "COMFYUI_PATH": str(comfyui.path), "MICROCINEMA_VENV": sys.prefix}
        process = subprocess.Popen(
            command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until_running(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until the graph runs, and return the demo's child processes, that is ComfyUI."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Prompt:"):
            time.sleep(1)
            return psutil.Process(process.pid).children(recursive=True)
    raise AssertionError("the demo ended before it ran anything")


def test_the_last_line_is_the_result(start, tmp_path: Path) -> None:
    process = start(stub(9), "--seed", "3")
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    result = json.loads(out.splitlines()[-1])
    assert (result["frames"], result["fps"], result["width"], result["height"]) == (9, 8.0, 64, 64)
    assert Path(result["video"]).parent == tmp_path / "out"
    assert Path(result["video"]).stat().st_size > 0
    assert {"Start ComfyUI", "Save Video"} <= set(result["stages"])
    assert 0 < sum(result["stages"].values()) <= result["seconds"] + 0.5
    with av.open(result["video"]) as container:
        restored = json.loads(container.metadata["workflow"])
    assert {node["type"] for node in restored["nodes"]} == {node["type"] for node in stub(9)["nodes"]}


def test_a_missing_node_is_one_sentence(start) -> None:
    process = start({"nodes": [{"id": 1, "type": "NoSuchNode"}]})
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "needs the node NoSuchNode" in errors
    assert "Traceback" not in errors
    assert not out


def test_the_upscaler_is_what_the_host_can_load(host: ComfyServer) -> None:
    """The output has four times the size, matches the input when downscaled, and is sharper than bicubic."""
    try:
        file = fetch_upscaler()
    except Problem as problem:
        pytest.skip(f"not fetched: {problem}")
    folder = host.models_dir / "upscale_models"
    folder.mkdir(exist_ok=True)
    shutil.copy(file, folder / FILE_NAME)
    picture = Image.new("RGB", (64, 64), (120, 170, 90))
    ImageDraw.Draw(picture).ellipse((12, 12, 50, 50), fill=(220, 40, 60))
    picture.save(host.input_dir / "disc.png")
    outputs = host.run(
        {
            "1": {"class_type": "LoadImage", "inputs": {"image": "disc.png"}},
            "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": FILE_NAME}},
            "3": {
                "class_type": "ImageUpscaleWithModel",
                "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]},
            },
            "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "disc4"}},
        }
    )
    large = Image.open(host.output_dir / outputs["4"]["images"][0]["filename"])
    assert large.size == (256, 256)
    difference = np.subtract(large.resize((64, 64), Image.Resampling.BOX), picture, dtype=float)
    assert np.sqrt((difference**2).mean()) < 12
    assert steepest(large) > 1.2 * steepest(picture.resize((256, 256), Image.Resampling.BICUBIC))


def steepest(picture: Image.Image) -> float:
    """Return the mean over rows of the largest step between neighbours."""
    return float(np.abs(np.diff(np.asarray(picture.convert("L"), dtype=float), axis=1)).max(axis=1).mean())


@pytest.mark.skipif(os.name != "posix", reason="signals are sent")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_is_left(start, number: signal.Signals) -> None:
    process = start(stub(64, blur=True))
    children = until_running(process)
    assert children
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (130 if number != signal.SIGKILL else -number)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_keep_leaves_the_server_up_until_stop(start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home"))
    process = start(stub(2), "--keep")
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    (line,) = [line for line in errors.splitlines() if "stays up at" in line]
    url, command = line.split("stays up at ")[1].split(". To stop it: python3 ")
    assert ComfyClient(url).object_info("LoadImage")["input"]["required"]["image"][0] >= ["example.png"]
    done = subprocess.run([sys.executable, *command.split()], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(HostError, match="does not respond"):
        ComfyClient(url).get("/system_stats")
