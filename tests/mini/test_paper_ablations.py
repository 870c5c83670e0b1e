"""The paper's ablations at the mini scale: their trainings, the statistics, and the tables."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

from devtools.check import tiny
from microcinema_core.config import AppearNetConfig
from microcinema_core.data.shards import INDEX, write_shard
from microcinema_core.diffusion.video_model import VideoModel
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.unet import UNet3D
from mini.evaluate import ablation_plan, ablation_report, paper_ablations
from mini.evaluate.ablation_measure import Bench, Values, captions_of
from mini.evaluate.ablation_plan import (
    FROZEN_AT_ZERO,
    TABLES,
    VARIANTS,
    Cell,
    cells_of,
    variants_of,
)
from mini.evaluate.ablation_report import CLAIMS, Measured, Statistics, compare, plot_fig6, report
from mini.evaluate.ablation_statistics import Estimate, estimate, holm
from mini.evaluate.protocol import evaluation_clips
from mini.world import encode
from tests.mini.data_world import write_world


def test_the_papers_rows_are_all_there() -> None:
    """Table 2's four injections, Fig. 6's three lambdas by three gammas, and Fig. 7's four combinations."""
    kinds = [
        VARIANTS[cell.variant].get("model", {}).get("injection", "spade")
        for cell in TABLES["table2"].rows.values()
    ]
    assert kinds == ["concat", "add_dec", "add_encdec", "spade"]
    grid = [
        (VARIANTS[cell.variant].get("model", {}).get("lambda", 0.03), cell.gamma)
        for cell in TABLES["fig6"].rows.values()
    ]
    assert grid == [(lambda_, gamma) for lambda_ in (0.0, 0.03, 0.1) for gamma in (0.0, 0.02, 0.065)]
    assert len(variants_of(["fig6"])) == 3, "gamma is a matter of sampling"
    frozen = {
        row: VARIANTS[cell.variant].get("optim", {}).get("groups", {}).get("injection", 1.0) == 0
        for row, cell in TABLES["fig7"].rows.items()
    }
    assert frozen == {"neither": True, "AIN alone": False, "ANP alone": True, "both": False}
    assert [cell.gamma for cell in TABLES["fig7"].rows.values()] == [0.0, 0.0, 0.02, 0.02]
    assert all(table.baseline in table.rows for table in TABLES.values())
    assert all(row in table.rows for table in TABLES.values() for claim in table.claims for row in claim)
    assert set(variants_of(TABLES)) <= set(VARIANTS) and len(cells_of(TABLES)) == len(set(cells_of(TABLES)))


def test_a_frozen_injection_leaves_the_prior_alone() -> None:
    """The sample depends on the picture through lambda and gamma only; with both 0 it does not depend on it."""
    assert FROZEN_AT_ZERO["optim"]["groups"]["injection"] == 0
    config = AppearNetConfig(tiny.UNET, injection=FROZEN_AT_ZERO["model"]["injection"])
    unet, appearnet = UNet3D(config.unet), AppearNet(config)
    with torch.no_grad():
        for weight in unet.parameters():  # a trained U-Net: its zero layers have moved
            weight.add_(
                0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
            )

    def sampled(lambda_: float, gamma: float, picture: Tensor) -> Tensor:
        model = VideoModel(unet, appearnet, ModelSpec("base", lambda_, 2.0, 3))
        text = torch.zeros(1, 77, config.unet.context_dim)
        return model.sample(picture, text, text, frames=3, steps=2, guidance_scale=1.0, gamma=gamma)

    one, other = (torch.full((1, config.unet.in_channels, 8, 8), level) for level in (-1.0, 1.0))
    assert torch.equal(sampled(0.0, 0.0, one), sampled(0.0, 0.0, other))
    for lambda_, gamma in ((0.03, 0.0), (0.0, 0.02), (0.1, 0.02)):
        assert not torch.equal(sampled(lambda_, gamma, one), sampled(lambda_, gamma, other))


def options(tmp_path: Path, content: bytes = b"a file", **given: object) -> Namespace:
    image = tmp_path / "image.safetensors"
    image.write_bytes(content)
    read = paper_ablations.build_parser().parse_args(["--image", str(image)])
    vars(read).update(given)
    paper_ablations.check(read)
    return read


def test_budgets_are_equal_and_runs_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    first = options(tmp_path, steps=7)
    runs = paper_ablations.runs_of(first)
    configs = [paper_ablations.config_of(run, first) for run in runs]
    assert len({config.name for config in configs}) == len(runs) == 3 * len(variants_of(TABLES))
    assert {(config.optim.max_steps, config.optim.max_minutes, config.data.batch) for config in configs} == {
        (7, 0.0, 1)
    }
    assert {run[1] for run in runs[: len(runs) // 3]} == {1}, "one seed of all comes before the next"
    (tmp_path / "other").mkdir()
    other = options(tmp_path / "other", steps=7)
    assert paper_ablations.config_of(runs[0], other).name == configs[0].name, "the same file"
    another = options(tmp_path / "other", b"another file", steps=7)
    assert paper_ablations.config_of(runs[0], another).name != configs[0].name
    assert f"{len(runs)} runs of 7 steps" in paper_ablations.plan(first)
    parts = [runs[number - 1 :: 2] for number in (1, 2)]
    assert sorted(parts[0] + parts[1]) == sorted(runs)


def test_the_test_split_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    paper_ablations.allow_test(options(tmp_path))
    paper_ablations.allow_test(options(tmp_path))
    with pytest.raises(ValueError, match=r"other settings \(seeds was 3\); it is measured once"):
        paper_ablations.allow_test(options(tmp_path, seeds=4))


def test_what_is_measured_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of another machine give the tables, without its models and without the sets."""
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    given = options(tmp_path, values=tmp_path / "values", tables=["fig7"], seeds=2)
    bench = paper_ablations.bench_of(given, "validation")
    write_shard(bench.folder / "real.safetensors", {"features": torch.zeros(1, 4)})
    runs = paper_ablations.runs_of(given)
    missing = runs.pop(3)
    for name, seed in runs:
        (cell,) = [cell for cell in cells_of(["fig7"]) if cell.variant == name]
        folder = paper_ablations.config_of((name, seed), given).name
        write_shard(bench.path(folder, cell), {"motion": torch.zeros(1)})
    done: list[str] = []
    monkeypatch.setattr(paper_ablations, "encode_sets", lambda vae: done.append("sets"))
    monkeypatch.setattr(paper_ablations, "train", lambda config: done.append(config.name))
    monkeypatch.setattr(Bench, "values", lambda *_: done.append("values"))
    left = ["train    0.0 min" not in line for line in paper_ablations.plan(given).splitlines()]
    assert left == [*[False] * 3, True, *[False] * 4, True]
    assert not paper_ablations.complete(given, "validation")
    paper_ablations.make(given, ["validation"])
    assert done == ["sets", paper_ablations.config_of(missing, given).name, "values"]


def test_a_library_that_is_not_there_is_named_with_the_training_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Namespace) -> int:
        raise ModuleNotFoundError("no accelerate", name="accelerate")

    monkeypatch.setattr(paper_ablations, "run", run)
    assert paper_ablations.main([]) == 1
    assert capsys.readouterr().err.startswith("accelerate is not installed: pip install '.[train]'")


def test_one_source_of_variation_gives_the_textbook_interval() -> None:
    """Without spread over keys it is the t-test over seeds; without spread over seeds, the bootstrap's own error."""
    seeds = [0.3, 0.9, 0.1]
    found = estimate(seeds, torch.zeros(50), keys=40)
    truth = stats.ttest_1samp(seeds, 0.0)
    assert found.p == pytest.approx(truth.pvalue)
    assert found.interval == pytest.approx(tuple(truth.confidence_interval(0.95)))
    draws = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 0.5 + 2
    found = estimate([2.0, 2.0], draws, keys=1000)
    assert found.error == pytest.approx(float(draws.std()), rel=1e-5)
    assert found.interval[1] == pytest.approx(2 + 1.962 * 0.5, rel=0.02)
    assert Estimate(0.0, 0.0, 1.0).p == 1.0
    with pytest.raises(ValueError, match="1 keys"):
        estimate([1.0], draws, keys=1)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Seeds and keys both vary: 95% of the intervals around the mean of three seeds and 30 keys have it."""
    generator = torch.Generator().manual_seed(1)
    inside = 0
    for _ in range(300):
        keys, seeds = torch.randn(30, generator=generator), torch.randn(3, 1, generator=generator) * 0.2
        values = keys + seeds + 0.5 * torch.randn(3, 30, generator=generator)
        weights = torch.multinomial(torch.ones(200, 30), 30, replacement=True, generator=generator)
        resampled = values.mean(0)[weights].mean(1)
        low, high = estimate(values.mean(1).tolist(), resampled, keys=30).interval
        inside += low <= 0 <= high
    assert 0.92 <= inside / 300 <= 0.99


def test_holm_is_holms() -> None:
    """The example of Holm's paper in every textbook: 0.01, 0.04, 0.03 and 0.005 become 0.03, 0.06, 0.06 and 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


KEYS = [f"key {i % 20}" for i in range(40)]


def made_up(level: float, seed: int) -> Values:
    """Clips whose features are `level` away from the real ones."""
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    return {
        "features": real()["features"] + level + 0.05 * rand(40, 400),
        "motion": real()["motion"] * (1 + level) + 0.01 * rand(40),
        "drift": real()["drift"] * 2,
        "centre_psnr": 20 + level + rand(40),
        "prompted": (rand(24) < 0.5).float(),
    }


def real() -> Values:
    generator = torch.Generator().manual_seed(99)
    return {
        "features": torch.rand(40, 400, generator=generator),
        "motion": torch.rand(40, generator=generator) + 0.5,
        "drift": torch.rand(40, generator=generator) + 0.5,
    }


@pytest.fixture(scope="module")
def found() -> Statistics:
    """Three seeds of every cell; the paper's best of Fig. 6 is the farthest here, and *neither* of Fig. 7 too."""
    far = {Cell("neither", 0.0): 0.5, Cell("concat"): 0.4, Cell("add_dec"): 0.3, Cell("add_encdec"): 0.2}
    runs = {
        cell: [made_up(far.get(cell, 0.1), 10 * seed + len(cell.key)) for seed in (1, 2, 3)]
        for cell in cells_of(TABLES)
    }
    return Statistics(Measured(runs, real(), KEYS, [f"subject {i % 4}" for i in range(24)]), resamples=60)


def test_a_table_has_means_differences_and_what_became_of_the_papers_order(found: Statistics) -> None:
    text = report("table2", found)
    assert "Means over 3 seeds" in text
    # 3 claims, of which one is a row's difference; 3 rows x 5 metrics without it
    assert "for the paper's 3 claims in kernel distance and, apart, for the 14 other comparisons" in text
    assert "the intervals beside it are not corrected" in text
    assert "for the 5 comparisons;" in report("norms", found)
    assert "- *Add-to-Dec* against *Concat*: -" in text and text.count("as in the paper") == 3
    for name in ("fig6", "table3"):
        assert "no difference can be told" in report(name, found)
    by_hand = [made_up(0.4, 10 * seed + len(Cell("concat").key)) for seed in (1, 2, 3)]
    means = [float(values["centre_psnr"].mean()) for values in by_hand]
    assert found.mean("centre frame, dB", Cell("concat")).value == pytest.approx(
        math.fsum(means) / 3, rel=1e-5
    )
    assert found.mean("drift over real", Cell()).value == pytest.approx(2.0, rel=1e-5)
    (one,) = (c for c in compare(TABLES["table3"], found) if c.metric == "motion over real")
    assert one.row == "full" and one.difference.value == pytest.approx(
        found.mean(one.metric, Cell()).value - found.mean(one.metric, Cell(captions="short")).value
    )


def test_the_papers_claims_are_a_family_of_their_own(found: Statistics) -> None:
    """Fig. 6: eight claims are corrected for eight; what nobody claimed is corrected for the other comparisons."""
    compared = compare(TABLES["fig6"], found)
    claims = [one for one in compared if one.family == CLAIMS]
    others = [one for one in compared if one.family != CLAIMS]
    best = {ablation_plan.grid_row(0.03, 0.02)}
    assert len(claims) == 8 and all(
        one.metric == "kernel distance" and {one.row, one.other} & best for one in claims
    )
    assert len(others) == 8 * 5 - 1, "the best against the baseline is a claim"
    assert [one.p for one in claims] == pytest.approx(holm([one.difference.p for one in claims]))
    assert [one.p for one in others] == pytest.approx(holm([one.difference.p for one in others]))
    for table in TABLES.values():
        asked = [(one.metric, frozenset((one.row, one.other))) for one in compare(table, found)]
        assert len(asked) == len(set(asked)), "no comparison is made twice"


def test_tables_need_the_measured_values_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither emoji nor models nor sets: the values have all, and the tables are of these values."""
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "empty"))
    given = options(tmp_path, values=tmp_path / "values", tables=["table2"], seeds=2)
    bench = paper_ablations.bench_of(given, "validation")
    keys = {"clips": KEYS, "prompted": [f"subject {i % 4}" for i in range(24)]}
    named = {name: json.dumps(kinds) for name, kinds in keys.items()}
    write_shard(bench.folder / "real.safetensors", real(), named)
    for name, seed in paper_ablations.runs_of(given):
        run = paper_ablations.config_of((name, seed), given).name
        write_shard(bench.path(run, Cell(name)), made_up(len(name) / 100, seed))
    arguments = [
        "--values",
        str(given.values),
        "--image",
        str(given.image),
        "--seeds",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert paper_ablations.main(["table2", *arguments]) == 0
    printed = capsys.readouterr().out
    runs = {
        cell: [made_up(len(cell.variant) / 100, seed) for seed in (1, 2)] for cell in cells_of(["table2"])
    }
    assert report("table2", Statistics(Measured(runs, real(), keys["clips"], keys["prompted"]))) in printed
    assert (tmp_path / "validation.md").read_text(encoding="utf-8").strip() == printed.strip()
    assert not (tmp_path / "empty").exists()


def test_the_opposite_of_the_paper_is_said(found: Statistics) -> None:
    swapped = {**found.measured.runs, Cell(): [made_up(0.9, seed) for seed in (1, 2, 3)]}
    changed = Statistics(Measured(swapped, real(), KEYS, found.measured.prompted_keys), resamples=60)
    assert "**the opposite of the paper**" in report("table2", changed)


def test_numbers_are_json_and_fig_6_is_drawn(found: Statistics, tmp_path: Path) -> None:
    numbers = json.loads(json.dumps(ablation_report.figures(["fig6"], found)))
    assert len(numbers["fig6"]["means"]) == 9
    plot_fig6(found, tmp_path / "fig6.png")
    with Image.open(tmp_path / "fig6.png") as picture:
        assert picture.width > 800


def test_short_captions_name_the_subject_alone(tmp_path: Path) -> None:
    clips = evaluation_clips(write_world(tmp_path / "emoji"), clips_per_key=1)
    short, full = (captions_of(Cell(captions=kind), clips) for kind in ("short", "full"))
    assert full == [one.caption for one in clips]
    assert all(text.startswith("a thing 1f") and "," not in text for text in short)


def test_sets_that_are_missing_are_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    encoded: list[list[str]] = []
    monkeypatch.setattr(encode, "main", encoded.append)
    there = tmp_path / "data" / "base-ablations" / INDEX
    there.parent.mkdir(parents=True)
    there.touch()
    paper_ablations.encode_sets(Path("vae.safetensors"))
    assert [arguments[:3] for arguments in encoded] == [
        ["base-ablations-validation", "--vae", "vae.safetensors"]
    ]
    assert [encode.parse_name(name) for name in paper_ablations.SETS] == [
        ("base", "train"),
        ("base", "validation"),
    ]
