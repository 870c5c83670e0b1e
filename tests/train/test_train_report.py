"""Output of a run: statistics, TensorBoard, W&B, the progress line, preview sheets and exports."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from microcinema_core.train import loop
from microcinema_core.train.report import Report
from tests.train.train_world import config, seeded


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    return tmp_path


def test_a_run_leaves_config_figures_sheet_and_export(home: Path) -> None:
    loop.run(config(), stage=seeded())
    folder = home / "runs" / "toy"
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert {"loss", "extra", "lr/fast", "lr/slow", "grad/fast", "grad/slow", "seconds_per_step"} <= set(
        rows[0]
    )
    assert rows[0]["lr/slow"] == pytest.approx(0.1 * rows[0]["lr/fast"])
    assert json.loads((folder / "config.json").read_text())["data"]["batch"] == 7
    assert list((folder / "sheets").glob("*.png"))
    assert (folder / "toy.safetensors").exists()


def test_figures_of_steps_that_are_done_again_are_forgotten(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"step": step}) + "\n" for step in (4, 8, 12))
    folder = tmp_path / "runs/toy"
    folder.mkdir(parents=True)
    (folder / "stats.jsonl").write_text(rows + '{"step": 16, "lo')
    Report(config(), step=9)
    assert (folder / "stats.jsonl").read_text() == '{"step": 4}\n{"step": 8}\n'


def test_tensorboard_gets_the_figures_and_the_sheet(home: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loop.run(config(), stage=seeded())
    held = events.EventAccumulator(str(home / "runs/toy/tensorboard"))
    held.Reload()
    assert {"loss", "lr/fast", "lr/slow", "grad/fast", "grad/slow", "seconds_per_step"} <= set(
        held.Tags()["scalars"]
    )
    assert [event.step for event in held.Scalars("loss")] == [4, 8, 12] and held.Tags()["images"] == ["sheet"]


def test_a_live_line_shows_speed_loss_time_and_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    loop.run(config(), stage=seeded())
    line = capsys.readouterr().err.split("\r")[-1]
    assert re.search(r"toy.*12/12.*(step/s|s/step), loss \d\.\d+, 0 min left, \d+\.\d GiB", line), line


def test_weights_and_biases_get_the_figures_offline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    loop.run(config(log={"wandb": "project"}), stage=seeded())
    [record] = (home / "runs/toy/wandb").glob("offline-run-*/*.wandb")
    assert b"seconds_per_step" in record.read_bytes()


def test_weights_and_biases_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        ValueError, match=r"log.wandb is 'project', but wandb is not installed: pip install wandb"
    ):
        loop.run(config(log={"wandb": "project"}), stage=seeded())
