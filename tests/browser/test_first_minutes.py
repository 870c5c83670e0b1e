"""Somebody's first minutes: from the template browser to a saved video of a picture of their own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw

from devtools.run.server import ComfyServer
from tests.browser.canvas import FIT, WIDGET, animation_in, clip_in, complaints, keep_picture, press_run
from tests.browser.conftest import opened

TEMPLATE = "10 Start here - picture to video (mini)"
MINUTES = 3
GROUND = (40, 150, 90)
"""The colour of the picture's ground. No picture that ships has it."""


def test_a_picture_of_ones_own_becomes_a_saved_video(
    browser: Any, served: ComfyServer, artifacts: Path, tmp_path: Path
) -> None:
    """Four clicks and a file. A screenshot of every step has the seconds since the first click in its name."""
    picture = tmp_path / "my picture.png"
    draw_star(picture)
    with opened(browser, served) as page:
        begun = time.monotonic()

        def film(step: str) -> float:
            seconds = time.monotonic() - begun
            keep_picture(page, artifacts / f"first_minutes_{step}_{seconds:.0f}s.png")
            return seconds

        page.get_by_role("button", name="Templates").first.click()
        page.locator(".p-dialog").get_by_text("microcinema", exact=False).first.click()
        card = page.locator(".p-dialog").get_by_text(TEMPLATE, exact=True).first
        card.wait_for()
        film("1_templates")
        card.click()
        page.locator(".p-dialog").wait_for(state="hidden")
        page.wait_for_function("() => app.graph._nodes.some(node => node.type === 'LoadImage')")
        film("2_workflow")
        with page.expect_file_chooser() as chooser:
            page.mouse.click(*page.evaluate(WIDGET, ["LoadImage", "upload"]))
        chooser.value.set_files(picture)
        page.wait_for_function(
            "() => app.graph._nodes.find(node => node.type === 'LoadImage').widgets[0].value === 'my picture.png'"
        )
        film("3_own_picture")
        assert (press_run(page), complaints(page)) == ("execution_success", [])
        clip_in(page, "SaveVideo", "output")
        animation_in(page, "MicroCinemaFrameCombine")
        page.evaluate(FIT)
        assert film("4_video") < MINUTES * 60
    (saved,) = served.output_dir.rglob("*.mp4")
    corner = np.mean([frame[:12, :12].reshape(-1, 3).mean(0) for frame in frames_of(saved)], axis=0)
    assert corner == pytest.approx(GROUND, abs=25)


def draw_star(path: Path) -> None:
    """Draw a yellow star on green."""
    page = Image.new("RGB", (600, 600), GROUND)
    angles = np.pi / 5 * np.arange(10)
    radii = np.where(np.arange(10) % 2, 90, 220)
    points = np.stack([300 + radii * np.sin(angles), 300 - radii * np.cos(angles)], axis=1)
    ImageDraw.Draw(page).polygon([tuple(point) for point in points.tolist()], fill="#ffd02e")
    page.save(path)


def frames_of(path: Path) -> list[np.ndarray]:
    """Return a video's frames as RGB."""
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
