"""The ablations' table: differences from the paper's choice, paired by seed."""

from __future__ import annotations

from microcinema_core.evaluate.ablations import VARIANTS, table
from microcinema_core.train.config import from_table
from microcinema_core.train.stages.clips import ClipModel


def test_every_variant_is_a_model_that_training_knows() -> None:
    for change in VARIANTS.values():
        from_table(ClipModel, {"image_file": "x", **change}, "[model]")
    assert VARIANTS["paper"] == {}


def test_differences_are_paired_by_seed() -> None:
    """Seeds that differ much, a variant that is better by the same everywhere: its interval is narrow."""
    runs = {
        "paper": [{"loss": 0.30}, {"loss": 0.50}, {"loss": 0.40}],
        "other": [{"loss": 0.29}, {"loss": 0.49}, {"loss": 0.39}],
    }
    *_, paper, other = table(runs).splitlines()
    assert paper == "| paper | 3 | 0.400 ± 0.248 |"
    assert other == "| other | 3 | -0.010 ± 0.000 |"
