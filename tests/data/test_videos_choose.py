"""Scores of clips, and thresholds that are chosen afterwards."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from microcinema_core.config import END_TOKEN, START_TOKEN
from microcinema_core.data.videos import encode, score_job, sets
from microcinema_core.data.videos.report import read_report
from microcinema_core.data.videos.score import CLIPScorer, motion
from microcinema_core.data.videos.score_table import parse_keep, read_rows, resolve_limits
from tests.data.prepare_world import World
from tests.data.video_world import drawing

for library in ("diffusers", "transformers", "skimage", "pyarrow", "matplotlib"):
    pytest.importorskip(library)


def test_thresholds_are_chosen_afterwards(world: World, tmp_path: Path, monkeypatch: Any) -> None:
    out = tmp_path / "out"
    world.run(out)
    whole = {row["clip_id"] for name in sets.list_sets(out) for row in sets.read_set(out / name)}
    monkeypatch.setattr(score_job, "survey", None)
    calls: list[Any] = []
    real = encode.encode_clip

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(encode, "encode_clip", counted)
    world.run(out, "--keep", "motion:0.2q..0.8q")
    rows = [row for name in sets.list_sets(out) for row in sets.read_set(out / name)]
    assert 0 < len(rows) < len(whole) and not calls
    assert "a.mp4" not in {row["video"] for row in rows}, "its square stands still"
    world.run(out)
    assert {row["clip_id"] for name in sets.list_sets(out) for row in sets.read_set(out / name)} == whole
    assert len(calls) == len(whole) - len(rows), "only what is new was encoded"


def clip_model(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**shape, "image_size": 32, "patch_size": 16}
    text = {**shape, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    return folder


def brightness(frames: Tensor, captions: list[str]) -> float:
    """A user's own score: the mean of all pixels."""
    assert frames.dtype == torch.uint8 and captions
    return float(frames.float().mean())


def test_scores(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = clip_model(tmp_path / "clip")
    hook = (
        f"bright={__name__}:brightness"
        if "." in __name__
        else "bright=tests.data.test_videos_choose:brightness"
    )
    arguments = ["--clip-model", str(model), "--score", hook, "--only-scores"]
    world.run(tmp_path / "out", *arguments)
    summary = json.loads(capsys.readouterr().out)
    assert summary["scores"] == ["motion", "clip", "bright"] and summary["clips"] == 4
    assert [Path(path).name for path in summary["histograms"]] == ["motion.png", "clip.png", "bright.png"]
    plain = [Image.open(path).convert("RGB").tobytes() for path in summary["histograms"]]
    world.run(tmp_path / "out", *arguments, "--keep", "clip:0.5q..")
    capsys.readouterr()
    lined = [Image.open(path).convert("RGB").tobytes() for path in summary["histograms"]]
    assert [one == other for one, other in zip(plain, lined, strict=True)] == [True, False, True], (
        "a threshold shows in its own score's plot alone"
    )
    rows = [row for path in sorted((tmp_path / "out").rglob("*.parquet")) for row in read_rows(path)]
    assert len(rows) == 4 and all(-1 <= row["score_clip"] <= 1 and row["score_bright"] > 30 for row in rows)
    motions = {row["video"]: row["score_motion"] for row in rows}
    assert motions["a.mp4"] < min(value for name, value in motions.items() if name != "a.mp4")


def test_the_clip_score_is_transformers_own(world: World, tmp_path: Path) -> None:
    """Compute the reference: CLIP's own processor and tokenizer, and the mean of all cosine similarities."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = clip_model(tmp_path / "clip")
    frames = torch.from_numpy(np.stack([drawing(index, 96, 64) for index in range(5)])).permute(0, 3, 1, 2)
    captions = ["caption a", "another"]
    found = CLIPScorer(folder, world.tokenizer)(frames, captions)
    pictures = [Image.fromarray(frames[place].permute(1, 2, 0).numpy()) for place in (0, 2, 4)]
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    tokenizer = CLIPTokenizer.from_pretrained(world.tokenizer)
    ids = [
        [START_TOKEN, *tokenizer(text)["input_ids"][1:-1], END_TOKEN] for text in captions
    ]  # the tokenizer's own start and end ids differ
    model = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        one = [model(input_ids=torch.tensor([row]), pixel_values=pixels).logits_per_image for row in ids]
        cosines = torch.cat(one) / model.logit_scale.exp()
    assert found == pytest.approx(float(cosines.mean()), abs=2e-3)
    assert float(cosines.std()) > 2e-3, "captions and frames differ in it"


def test_a_score_of_ones_own_that_fails_is_named(world: World, tmp_path: Path) -> None:
    world.run(tmp_path, "--score", "odd=math:sqrt", "--only-scores", code=1)
    first, *_ = (line for line in read_report(tmp_path / "report.jsonl") if line.file.startswith("unit"))
    assert "could not be scored: TypeError" in first.reason


def test_motion_is_in_sides_a_second() -> None:
    rng = np.random.default_rng(0)
    ground = torch.from_numpy(np.kron(rng.integers(0, 255, (30, 30)), np.ones((8, 8))).astype(np.uint8))
    wide = torch.nn.functional.avg_pool2d(ground[None, None].float(), 9, 1, 4)[0].to(torch.uint8)
    frames = torch.stack([wide[:, 20:148, 4 * n : 4 * n + 128] for n in range(5)]).repeat(1, 3, 1, 1)
    assert motion(frames, 8.0) == pytest.approx(8 * 4 / 128, rel=0.15)
    assert motion(frames[:1].repeat(5, 1, 1, 1), 8.0) == pytest.approx(0, abs=1e-6)


def test_keep_by_value_and_quantile() -> None:
    columns = {
        "role": np.array(["base"] * 5 + ["tsr"] * 2),
        "rate": np.array([2.0] * 5 + [8.0] * 2),
        "motion": np.array([0.0, 1, 2, 3, np.nan, 10, 20]),
    }
    limits = resolve_limits(columns, parse_keep("motion:0.5q..2.5"))
    assert limits == {("base", 2.0): {"motion": (1.5, 2.5)}, ("tsr", 8.0): {"motion": (15.0, 2.5)}}
    with pytest.raises(ValueError, match="keep names 'clip'; the scores are: motion"):
        resolve_limits(columns, parse_keep("clip:0.2.."))
    for text in ("motion", "motion:..", "motion:a..b", "motion:0.2"):
        with pytest.raises(ValueError, match=r"expected SCORE:LOW\.\.HIGH"):
            parse_keep(text)
    with pytest.raises(ValueError, match="a quantile is from 0 to 1"):
        parse_keep("motion:7q..")


def test_the_papers_filter_leaves_out_a_tenth_at_each_end() -> None:
    scores = np.arange(101) / 100
    columns = {
        "role": np.array(["base"] * 101),
        "rate": np.full(101, 2.0),
        "motion": scores,
        "clip": scores[::-1],
    }
    [limits] = resolve_limits(columns, parse_keep(" webvid ")).values()
    assert limits["motion"] == pytest.approx((0.1, 0.9))
    assert limits["clip"] == (pytest.approx(0.1), math.inf)
    del columns["clip"]
    with pytest.raises(ValueError, match="keep names 'clip'; the scores are: motion"):
        resolve_limits(columns, parse_keep("webvid"))
