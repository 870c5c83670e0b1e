"""Pictures at other frames than the centre: which frames are sampled and kept, and the real clips beside them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mini.evaluate.anchor import Take, anchored, by_distance, centred_window, sample_takes
from mini.evaluate.evaluation_context import EvaluationContext
from mini.evaluate.protocol import frames, motion_clips
from mini.world.render import BASE_TIMES, CENTRE_TIME
from tests.mini.data_world import write_world


@pytest.mark.parametrize(
    ("index", "count", "expected"),
    [
        (0, 9, (17, 8, 17)),
        (8, 9, (17, 0, 9)),
        (4, 9, (9, 0, 9)),
        (2, 9, (13, 4, 13)),
        (0, 1, (1, 0, 1)),
        (0, 6, (11, 5, 11)),
    ],
)
def test_which_frames_are_sampled_and_kept(index: int, count: int, expected: tuple[int, int, int]) -> None:
    length, kept = centred_window(index, count)
    assert (length, kept.start, kept.stop) == expected


def test_there_is_no_frame_outside_the_video() -> None:
    for index in (-1, 9):
        with pytest.raises(ValueError, match="no frame"):
            centred_window(index, 9)


class Counting:
    """A model whose frames are the picture plus the distance from the centre, which it is trained to count."""

    def sample(self, pictures: Tensor, text: Any, empty: Any, *, frames: int, **_: Any) -> Tensor:
        assert frames % 2 == 1
        distance = torch.arange(frames).float() - frames // 2
        return pictures[:, None] + distance[None, :, None, None, None]


@pytest.mark.parametrize("index", range(9))
def test_the_picture_is_where_it_was_asked_for(index: int) -> None:
    evaluation = EvaluationContext(Path(), Path(), Path())
    pipeline = SimpleNamespace(encode_text=lambda captions: None, decode=lambda latents: latents)
    evaluation.__dict__.update(pipeline=pipeline, base=Counting())
    pictures = torch.full((2, 1, 1, 1), 100.0)
    video = sample_takes(evaluation, {"one": Take(index, 0.1)}, pictures, ["", ""], 0)["one"]
    assert video[0].flatten().tolist() == [100.0 + i - index for i in range(9)]


@pytest.mark.parametrize("index", range(9))
def test_real_clips_show_the_picture_at_that_frame_and_move_on_as_before(index: int, tmp_path: Path) -> None:
    world = write_world(tmp_path)
    clips = [one.clip for one in motion_clips(world, subjects=2, split="train")]
    picture = frames(world, clips, [CENTRE_TIME])[:, 0]
    moved = frames(world, [anchored(clip, index) for clip in clips], BASE_TIMES)
    torch.testing.assert_close(moved[:, index], picture, atol=1e-4, rtol=0)
    usual = frames(world, clips, BASE_TIMES)
    both = range(max(0, index - 4), min(9, index + 5))
    for i in both:
        torch.testing.assert_close(moved[:, i], usual[:, i - index + 4], atol=1e-4, rtol=0)


def test_values_are_averaged_over_frames_of_one_distance() -> None:
    values = torch.tensor([[4.0, 2.0, 0.0, 3.0, 6.0]])
    assert by_distance(values, 2).tolist() == [[2.5, 5.0]]
    assert by_distance(values, 0).tolist() == [[2.0, 0.0, 3.0, 6.0]]
    assert by_distance(values, 4).tolist() == [[3.0, 0.0, 2.0, 4.0]]
    steps = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    assert by_distance(steps, 2, steps=True).tolist() == [[2.5, 3.0]]
    assert by_distance(steps, 0, steps=True).tolist() == [[1.0, 2.0, 3.0, 5.0]]
    assert by_distance(steps, 4, steps=True).tolist() == [[5.0, 3.0, 2.0, 1.0]]
