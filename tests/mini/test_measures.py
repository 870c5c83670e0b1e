"""Measures of the evaluation on synthetic clips with known results."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mini.evaluate.measures import box_psnr, histogram_drift, object_masks, seam_ratio
from mini.evaluate.mini_pipeline import blend
from mini.evaluate.results import Estimate, ResultRow, markdown
from mini.evaluate.text import MotionClassifier, extent_slopes
from mini.world.render import MOTIONS

GROUND = torch.full((1, 3, 64, 64), -0.8)


def square(
    frames: int = 9, *, dx: float = 0, dy: float = 0, growth: float = 0, colours: Tensor | None = None
) -> Tensor:
    """Draw a square of side 20 that moves by (dx, dy) pixels per frame on a dark background, `1 f 3 64 64`."""
    clip = GROUND[:, None].repeat(1, frames, 1, 1, 1)
    for i in range(frames):
        step = i - frames // 2
        half = round(10 * 2 ** (growth * step))
        x, y = round(32 + dx * step), round(32 + dy * step)
        colour = torch.tensor([0.9, 0.1, -0.5]) if colours is None else colours[i]
        clip[0, i, :, max(0, y - half) : y + half, max(0, x - half) : x + half] = colour[:, None, None]
    return clip


def test_the_object_is_where_the_ground_is_not() -> None:
    assert object_masks(square(), GROUND).sum((2, 3)).tolist() == [[400] * 9]


def test_colours_that_stay_do_not_drift_and_others_do() -> None:
    still = histogram_drift(square(dx=2), GROUND)
    turned = torch.stack(
        [torch.tensor([0.9, 0.1, -0.5]) if i < 5 else torch.tensor([-0.9, 0.9, 0.9]) for i in range(9)]
    )
    assert still.item() == pytest.approx(0, abs=2e-3)
    assert histogram_drift(square(colours=turned), GROUND).item() == pytest.approx(0.5, abs=0.02)


def test_looks_are_measured_in_the_object_s_box_alone() -> None:
    real, alpha = torch.zeros(1, 3, 32, 32), torch.zeros(1, 32, 32)
    alpha[:, 8:16, 8:16] = 1
    outside, inside = real.clone(), real.clone()
    outside[..., 20:, 20:] = 1
    inside[..., 8:16, 8:16] = 0.2
    assert box_psnr(outside, real, alpha).isinf().all()
    assert box_psnr(inside, real, alpha).item() == pytest.approx(20)


def test_a_steady_motion_has_no_joins_and_a_held_key_frame_has() -> None:
    ramp = torch.linspace(0, 1, 9)[None, :, None, None, None].expand(1, 9, 3, 4, 4)
    assert seam_ratio(ramp, 4).item() == pytest.approx(1)
    held = ramp.clone()
    held[:, 4] += 0.5
    assert seam_ratio(held, 4).item() > 1.5


def test_blending_keeps_the_given_frames_and_draws_a_line_between() -> None:
    keys = torch.randn(2, 3, 8, 4, 4)
    between = blend(keys)
    assert between.shape == (2, 9, 8, 4, 4) and torch.equal(between[:, ::4], keys)
    torch.testing.assert_close(between[:, 2], (keys[:, 0] + keys[:, 1]) / 2)


def test_six_directions_are_told_apart() -> None:
    """The classifier has seen each motion at other speeds."""

    def moves(speed: float) -> list[Tensor]:
        return [square(dx=-speed), square(dx=speed), square(dy=-speed), square(dy=speed),
                square(growth=speed / 20), square(growth=-speed / 20)]  # fmt: skip

    labels = torch.arange(len(MOTIONS))
    seen = torch.cat([clip for speed in (1.0, 2.0, 3.0) for clip in moves(speed)])
    ground = GROUND.expand(len(seen), -1, -1, -1)
    classify = MotionClassifier(extent_slopes(seen, ground), labels.repeat(3))
    unseen = torch.cat(moves(1.6))
    assert torch.equal(classify(unseen, ground[:6]), labels)


def test_a_row_says_whether_its_target_was_reached() -> None:
    weights = torch.ones(4, 3, dtype=torch.float64)
    estimate = Estimate.of(lambda w: float((w * torch.tensor([1.0, 2.0, 3.0])).sum() / w.sum()), weights)
    assert estimate.show(1, "dB") == "2.0 [2.0, 2.0] dB"
    rows = [ResultRow("a", "1", target=">= 2", met=False), ResultRow("b", "3", target=">= 2", met=True)]
    table = markdown(rows)
    assert "**no**" in table and table.count("\n") == 3
    assert "| a | 1 | 0.5 |" in markdown(rows, [ResultRow("a", "0.5"), ResultRow("c", "7")])
    assert "| b | 3 |  |" in markdown(rows, [])


def test_stored_rows_are_read_back_older_ones_too() -> None:
    row = ResultRow("a", "1", "b 2", ">= 2", met=False)
    assert ResultRow.from_dict(row.to_dict()) == row
    old = {"what": "a", "figure": "1", "beside": "b 2", "target": ">= 2", "met": False}
    assert ResultRow.from_dict(old) == row
