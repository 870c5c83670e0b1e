"""Ablations: their training configs, and the table of differences from the shipped variant, paired by seed."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from microcinema_core.train.config import TrainConfig, from_table
from microcinema_core.train.video_config import ModelTable
from mini.evaluate import ablations
from mini.evaluate.ablations import SHIPPED, VARIANTS, table, variant


def test_every_variant_is_a_model_that_training_knows() -> None:
    budget = Namespace(image=Path("image.safetensors"), steps=7, batch=2)
    for name, change in VARIANTS.items():
        config = variant(name, 1, budget)
        model = from_table(ModelTable, config.model, "[model]")
        own = {"appearance_attention"} if model.appearance_attention else set()
        assert set(config.optim.groups) == {"temporal", "injection", "spatial"} | own
        assert bool(own) == (name == "appearance attention"), "the others are the paper's network"
        assert change.keys() <= {"model", "optim"}
    assert VARIANTS[SHIPPED] == {}
    assert not any("loss" in change for change in VARIANTS.values()), "all drop text and appearance alike"


def test_every_variant_has_a_run_of_its_own() -> None:
    budgets = [Namespace(image=Path("image.safetensors"), steps=steps, batch=2) for steps in (7, 8)]
    configs = [variant(name, seed, budget) for budget in budgets for name in VARIANTS for seed in (1, 2)]
    assert len({config.run_folder for config in configs}) == len(configs)
    assert {config.optim.max_steps for config in configs} == {7, 8}
    assert all(config.data.batch == 2 for config in configs)


def test_differences_are_paired_by_seed() -> None:
    """Seeds differ much, but a variant that is better by the same amount for each has a narrow interval."""
    runs = {
        SHIPPED: [{"loss": 0.30}, {"loss": 0.50}, {"loss": 0.40}],
        "other": [{"loss": 0.29}, {"loss": 0.49}, {"loss": 0.39}],
    }
    *_, shipped, other = table(runs).splitlines()
    assert shipped == "| shipped | 3 | 0.400 ± 0.248 |"
    assert other == "| other | 3 | -0.010 ± 0.000 |"


def test_an_interrupted_run_is_not_taken_for_a_finished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training writes its file when it is interrupted, too."""
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    config = variant(SHIPPED, 1, Namespace(image=Path("image.safetensors"), steps=7, batch=2))
    resumed = []

    def run(config: TrainConfig, *, resume: bool) -> None:
        resumed.append(resume)
        step = 3 if len(resumed) == 1 else 7
        folder = config.run_folder / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": step, "elapsed": 60.0}))
        config.export_path.touch()

    monkeypatch.setattr(ablations, "run", run)
    with pytest.raises(KeyboardInterrupt):
        ablations.train(config)
    ablations.train(config)
    ablations.train(config)
    assert resumed == [False, True]
