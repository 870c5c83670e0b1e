"""All stages in order: what is done is not repeated, what was begun goes on, and the time left is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mini import family, train
from mini.world import emoji, encode, subset


class Factory:
    """The commands of all steps, which only write down that they ran and leave what they would leave."""

    def __init__(self, home: Path) -> None:
        self.home, self.ran, self.fails = home, [], ""

    def train(self, arguments: list[str]) -> int:
        name = Path(arguments[0]).stem
        self.ran.append(" ".join(["train", name, *arguments[1:]]))
        folder = self.home / "runs" / name
        self.checkpoint(name, minutes=10_000, step=10**6)
        if name == self.fails:
            return 130
        (folder / f"{name}.safetensors").touch()
        return 0

    def checkpoint(self, name: str, *, minutes: float, step: int = 100) -> None:
        folder = self.home / "runs" / name / "checkpoints" / f"step-{int(minutes):08d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps({"step": step, "elapsed": 60 * minutes}))

    def encode(self, arguments: list[str]) -> None:
        self.ran.append(f"encode {arguments[0]}")
        assert Path(arguments[2]).exists(), "the VAE comes first"
        rigid = {"rigid": True} if "--rigid" in arguments else {}
        share = {arguments[-2].removeprefix("--"): float(arguments[-1])}
        self.index(self.home / "data" / arguments[0], **rigid, **share)

    def select(self, source: Path, target: Path, motions: list[str]) -> int:
        self.ran.append(f"select {target.name}")
        assert (source / "index.json").exists()
        self.index(target)
        return 1

    def prepare(self, home: Path) -> Path:
        self.ran.append("prepare")
        folder = emoji.emoji_folder(home)
        folder.mkdir(parents=True)
        (folder / "catalogue.jsonl").touch()
        return folder

    def index(self, folder: Path, **drawn_as: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.json").write_text(json.dumps({"shards": [10**6], "count": 10**6, **drawn_as}))


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Factory:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    made = Factory(tmp_path)
    monkeypatch.setattr(emoji, "prepare", made.prepare)
    monkeypatch.setattr(encode, "main", made.encode)
    monkeypatch.setattr(subset, "select", made.select)
    return made


def test_all_steps_run_once_each_after_what_they_need(factory: Factory) -> None:
    assert family.run_all(factory.train) == 0
    assert factory.ran[:3] == ["prepare", "train mini_vae", "encode image"]
    assert len(factory.ran) == 18
    assert len(set(factory.ran)) == 18 and factory.ran[-1] == "train mini_tsr"
    assert family.run_all(factory.train) == 0
    assert len(factory.ran) == 18


def test_an_interrupted_step_ends_the_command_and_is_resumed(factory: Factory) -> None:
    factory.fails = "mini_image"
    assert family.run_all(factory.train) == 130
    assert factory.ran[-1] == "train mini_image"
    factory.fails = ""
    assert family.run_all(factory.train) == 0
    assert factory.ran[-8] == "train mini_image --resume" and factory.ran[-1] == "train mini_tsr"


def test_the_time_left_is_the_budget_less_what_is_done(factory: Factory) -> None:
    config = family.load(family.CONFIGS / "mini_tsr.toml")
    assert family.minutes_left(config) == config.optim.max_minutes
    factory.checkpoint("mini_tsr", minutes=30)
    assert family.minutes_left(config) == config.optim.max_minutes - 30
    factory.checkpoint("mini_tsr", minutes=config.optim.max_minutes + 0.5)
    assert 0 < family.minutes_left(config) < 1, "its file is missing yet"
    config.export_path.touch()
    assert family.minutes_left(config) == 0
    given = family.load(family.CONFIGS / "mini_image.toml")
    given = replace(given, optim=replace(given.optim, max_minutes=0.0, max_steps=80_000))
    assert family.minutes_left(given) > 60
    factory.checkpoint("mini_image", minutes=150)  # of 100 steps
    assert family.minutes_left(given) == pytest.approx(1.5 * (given.optim.max_steps - 100))


def test_a_file_from_elsewhere_is_not_trained_again(factory: Factory) -> None:
    folder = factory.home / "runs" / "mini_vae"
    folder.mkdir(parents=True)
    (folder / "mini_vae.safetensors").touch()
    assert family.run_all(factory.train) == 0
    assert "train mini_vae" not in factory.ran


def test_a_set_that_was_drawn_otherwise_is_not_taken(factory: Factory) -> None:
    """As many clips, but not with rigid motions: training on it would make another family."""
    factory.index(factory.home / "data" / "base", rigid=False, moved=0.35)
    assert family.run_all(factory.train) == 0
    assert "encode base" in factory.ran, "the command is run, and refuses"


def test_the_plan_is_printed(factory: Factory, capsys: pytest.CaptureFixture[str]) -> None:
    factory.prepare(factory.home)
    assert train.main(["--all", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "done" and lines[1].startswith("train mini_vae ") and "min" in lines[-1]
    assert factory.ran == ["prepare"]
