"""The page of a blind comparison: somebody answers it in a browser, closes it in between, and saves the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from microcinema_core.metrics.preference import __main__ as command
from microcinema_core.metrics.preference.study import read_study
from microcinema_core.metrics.preference.tally import tally
from tests.core.metric_world import write_set

QUESTIONS = ("motion", "text", "visual", "overall")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folders = [write_set(tmp_path / name, 2, first_scene=place, frames=6) for place, name in enumerate("ab")]
    assert command.main(["make", *map(str, folders), str(tmp_path / "study"), "--size", "64"]) == 0
    return tmp_path / "study"


def test_a_person_answers_and_the_file_is_counted(study: Path, browser: Any, artifacts: Path) -> None:
    sides = [pair.first for pair in read_study(study).pairs]
    page = browser.new_context(accept_downloads=True).new_page()
    page.goto((study / "page" / "index.html").as_uri())
    page.wait_for_function("() => [...document.querySelectorAll('video')].every(one => one.currentTime > 0)")
    assert page.locator("#next").is_disabled(), "not before all is answered"
    for name in QUESTIONS:
        page.locator(f"input[name={name}][value={sides[0]}]").check()
    page.screenshot(path=artifacts / "preference.png")
    page.locator("#next").click()
    page.locator("input[name=motion][value=same]").check()
    page.reload()
    assert page.locator("#place").inner_text().startswith("Pair 2 of 2"), "it continues"
    assert page.locator("input[name=motion][value=same]").is_checked()
    for name in QUESTIONS[1:]:
        page.locator(f"input[name={name}][value={sides[1]}]").check()
    page.locator("#next").click()
    page.locator("#name").fill("Ana María")
    with page.expect_download() as started:
        page.locator("#save").click()
    assert started.value.suggested_filename == "answers_Ana_María.json"
    started.value.save_as(study / "answers.json")
    page.context.close()
    rows = tally(study, [study / "answers.json"]).splitlines()
    assert "| Motion quality | 50% | 50% | 0% |" in rows[-4]
    assert all("| 100% | 0% | 0% | 1.00 [1.00, 1.00] |" in row for row in rows[-3:])
