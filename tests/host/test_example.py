"""The worked example of docs/training.md, command by command as it stands there, to a clip that ComfyUI rendered."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import torch

from devtools.check.example import WHEEL
from devtools.run.home import ROOT, home
from devtools.run.host import Host
from microcinema_core.files.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow
FOLDER = "output/example"


def commands(heading: str = "A worked example") -> list[str]:
    """The lines of the section's code blocks, continued ones joined."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, comfyui: Host) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder for the example, and an environment with a home of its own, with the videos if they were fetched."""
    root = tmp_path_factory.mktemp("worked")
    (root / "home" / "downloads").mkdir(parents=True)
    for wheel in (home() / "downloads").glob(WHEEL.replace("-", "_").replace("==", "-") + "-*.whl"):
        (root / "home" / "downloads" / wheel.name).symlink_to(wheel)
    own = {
        "MICROCINEMA_HOME": str(root / "home"),
        "MICROCINEMA_VENV": sys.prefix,
        "COMFYUI_PATH": str(comfyui.path),
    }
    yield root / "example", {**os.environ, **own}
    shutil.rmtree(root)  # 3 GB


def run(line: str, place: tuple[Path, dict[str, str]], named: str = FOLDER) -> str:
    folder, environment = place
    words = [word.replace(named, str(folder)) for word in shlex.split(line)]
    assert words[:2] == ["python3", "dev.py"], line
    command = [sys.executable, *words[1:]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    if done.returncode and "Downloading three videos failed" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    return done.stdout


def test_every_command_of_the_docs_runs(place: tuple[Path, dict[str, str]]) -> None:
    told = [run(line, place) for line in commands()]
    assert len(told) == 6
    folder, environment = place
    report = json.loads(told[1])
    assert report["videos"] == 3 and report["sets"]["base/64x64"] > 0 < report["sets"]["tsr/64x64"]
    base, tsr = (
        read_checkpoint(folder / f"{role}.safetensors", expect_roles=(role,)) for role in ("base", "tsr")
    )
    moved = [
        key for key in base.parts["unet"] if not torch.equal(base.parts["unet"][key], tsr.parts["unet"][key])
    ]
    assert moved and (base.spec.frames, base.spec.fps, tsr.spec.fps) == (5, 2.0, 8.0), (
        "TSR was trained on from the base file"
    )
    shown = Path(environment["MICROCINEMA_HOME"]) / "runs" / "example_base" / "sheets"
    assert {path.suffix for path in shown.iterdir()} == {".png", ".webp"}
    clip = json.loads(told[-1].splitlines()[-1])
    with av.open(clip["video"]) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 17 and clip["fps"] == 8.0


@pytest.mark.long
def test_training_on_published_motion_in_three_steps(place: tuple[Path, dict[str, str]]) -> None:
    folder = place[0].with_name("motion")
    lines = [line for line in commands("Start from published motion") if "output/motion" in line]
    assert len(lines) == 3
    for line in lines:
        run(line, (folder, place[1]), "output/motion")
    base = read_checkpoint(folder / "base.safetensors", expect_roles=("base",))
    found = json.loads(base.metadata["microcinema.sources"])
    assert [(one["file"], one["gives"]) for one in found] == [
        ("sd15.safetensors", ["spatial"]), ("motion.safetensors", ["temporal"])
    ]  # fmt: skip
    assert base.spec.betas == "linear" and base.spec.lambda_ == 0.03
