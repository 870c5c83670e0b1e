"""The family on one card, as a trial on the CPU: all stages, interrupted and gone on, with files at every end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from devtools.run.home import ROOT
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_image_model, load_video_model
from microcinema_core.train import video
from microcinema_core.train.checkpoints import saved_checkpoints
from microcinema_core.train.step import Diverged
from mini import train
from mini.card import family, loop
from tests.mini.card_world import write_archive, write_configs, write_start

SECONDS = 4


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> family.CardRun:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(family, "SHARES", dict.fromkeys(family.SHARES, 1 / 3))
    monkeypatch.setattr(video, "SHEET_STEPS", 1)
    monkeypatch.setattr(family, "_minutes_to_train", lambda *_: SECONDS / 60)
    return family.CardRun(
        write_archive(tmp_path, monkeypatch), "cpu", 1.0, batch=8, start=write_start(tmp_path)
    )


def test_all_stages_run_and_leave_files_that_load(run: family.CardRun, tmp_path: Path) -> None:
    configs = write_configs(tmp_path)
    assert family.train_family(run, configs) == 0
    runs = tmp_path / "home" / "runs"
    for name in ("card_image", "card_image_small"):
        file = read_checkpoint(runs / name / f"{name}.safetensors", expect_roles=("image",))
        assert set(file.parts) == {"unet", "text", "vae"} and file.spec.zero_terminal_snr
        load_image_model(file)
    base = read_checkpoint(runs / "card_base" / "card_base.safetensors", expect_roles=("base",))
    load_video_model(base)
    assert (base.spec.frames, base.spec.fps, base.spec.lambda_) == (9, 2.0, 0.03)
    assert all(list((runs / name / "sheets").glob("*.png")) for name in family.SHARES)
    rows = [json.loads(line) for line in (runs / "card_image" / "stats.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] >= 2 and all(row["loss"] < 10 for row in rows)
    steps = {name: saved_checkpoints(runs / name / "checkpoints")[-1].name for name in family.SHARES}
    assert family.train_family(run, configs) == 0
    assert steps == {name: saved_checkpoints(runs / name / "checkpoints")[-1].name for name in family.SHARES}


def test_an_interrupted_run_leaves_files_and_goes_on(
    run: family.CardRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, real, seen = write_configs(tmp_path), loop.step, []

    def step(trainer: loop.Trainer) -> object:
        seen.append(trainer.step)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(trainer)

    monkeypatch.setattr(loop, "step", step)
    assert family.train_family(run, configs) == 130
    folder = tmp_path / "home" / "runs" / "card_image"
    first = read_checkpoint(folder / "card_image.safetensors").part("unet")
    assert saved_checkpoints(folder / "checkpoints")[-1].name == "step-00000003"
    assert family.train_family(run, configs) == 0
    assert seen[:4] == [0, 1, 2, 3], "it goes on at the step after the last"
    second = read_checkpoint(folder / "card_image.safetensors").part("unet")
    assert any(not torch.equal(first[key], second[key]) for key in first)


def test_what_is_not_finite_ends_the_run_before_it_is_saved(
    run: family.CardRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.step
    monkeypatch.setattr(loop, "step", lambda t: {**real(t), "loss": torch.tensor(float("nan"))})
    with pytest.raises(Diverged, match="step 2: loss nan"):
        family.train_family(run, write_configs(tmp_path))
    folder = tmp_path / "home" / "runs" / "card_image"
    assert not saved_checkpoints(folder / "checkpoints") and not list(folder.glob("*.safetensors"))


def test_the_command_line_tells_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--device", "cpu"], "--device, --minutes and --data belong together"),
        (["--device", "cpu", "--minutes", "0", "--data", "x"], "--minutes is 0; a number above 0"),
    ):
        with pytest.raises(SystemExit):
            train.main(["--all", *arguments])
        assert said in capsys.readouterr().err
    assert train.main(["--all", "--device", "nowhere", "--minutes", "1", "--data", "x"]) == 1
    assert "--device is 'nowhere', which cannot be used here" in capsys.readouterr().err
    assert train.main(["--all", "--device", "cpu", "--minutes", "1", "--data", "x.zip"]) == 1
    assert "x.zip is no archive of the mini world" in capsys.readouterr().err


ALONE = """
import sys, tempfile
from pathlib import Path

sys.modules.update(dict.fromkeys(%r))  # importing a module that is None fails as one that is not installed
import torch
import mini.train, devtools.check.cuda, devtools.check.no_waiting, benchmarks.memory
from devtools.check.card_trial import build_trainer
from mini.card.loop import step

with tempfile.TemporaryDirectory() as folder:
    step(build_trainer(Path(folder), torch.device("cpu")))
"""


def test_it_needs_torch_safetensors_einops_numpy_and_pillow_alone() -> None:
    absent = (
        "accelerate",
        "av",
        "comfy",
        "diffusers",
        "huggingface_hub",
        "kornia",
        "matplotlib",
        "psutil",
        "scipy",
    )
    absent += ("skimage", "torchvision", "tqdm", "transformers")
    code = ALONE % (absent,)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
