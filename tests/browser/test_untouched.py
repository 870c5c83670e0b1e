"""The first hour: every workflow that needs no model of one's own runs as it is opened, and shows its video."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from devtools.run.example_pictures import PICTURES, drawn_face
from devtools.run.home import ROOT
from devtools.run.server import ComfyServer
from tests.browser.canvas import FIT, animation_in, clip_in, complaints, drop, keep_picture, press_run
from tests.browser.conftest import opened

pytestmark = pytest.mark.long  # every one takes all of a video
HOUR = 3_600_000  # milliseconds; all of a video, not a quick part of it
WORKFLOWS = sorted((ROOT / "workflows").glob("* (mini).json"))


@pytest.mark.parametrize("pictures", ["ours", "of a checkout"])
@pytest.mark.parametrize(
    "file", [file for file in WORKFLOWS if "Upscaled" not in file.stem], ids=lambda f: f.stem
)
def test_a_workflow_runs_as_it_is_opened(
    browser: Any, served: ComfyServer, artifacts: Path, file: Path, pictures: str
) -> None:
    """In `dev.py serve`, and with the only picture that a checkout of ComfyUI has."""
    provide(served, pictures)
    with opened(browser, served) as page:
        page.set_default_timeout(HOUR)
        drop(page, file)
        assert complaints(page) == []
        assert (press_run(page), complaints(page)) == ("execution_success", [])
        clip_in(page, "SaveVideo", "output")
        animation_in(page, "MicroCinemaFrameCombine")
        page.evaluate(FIT)
        keep_picture(page, artifacts / f"untouched_{pictures.split()[-1]}_{file.stem}.png")
    served.free()


def provide(server: ComfyServer, pictures: str) -> None:
    """Put pictures of one kind into the server's input folder, and nothing else."""
    shutil.rmtree(server.input_dir)
    server.input_dir.mkdir()
    if pictures == "ours":
        for name, centre in PICTURES.items():
            drawn_face(centre).save(server.input_dir / name)
    else:
        shutil.copy(server.host.path / "input" / "example.png", server.input_dir)
