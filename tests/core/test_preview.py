"""The frames that a preview shows: bounded in number, rate and size, and as long as the video."""

from __future__ import annotations

import pytest
import torch

from microcinema_core.frames.preview import shrink, thin_out


@pytest.mark.parametrize(
    ("count", "fps", "shown"),
    [
        (129, 32.0, range(129)),
        (130, 32.0, range(0, 130, 2)),
        (1000, 8.0, range(0, 1000, 8)),
        (9, 50.0, range(9)),
        (9, 60.0, range(0, 9, 2)),
        (1, 0.01, range(1)),
    ],
)
def test_long_and_fast_videos_skip_frames(count: int, fps: float, shown: range) -> None:
    video = torch.arange(count, dtype=torch.float32).reshape(count, 1, 1, 1).expand(count, 3, 2, 2)
    preview = thin_out(video, fps)
    assert preview.frames[:, 0, 0, 0].tolist() == list(shown)
    assert preview.fps == pytest.approx(fps / shown.step)


@pytest.mark.parametrize(
    ("size", "small"),
    [
        ((512, 300), (512, 300)),
        ((1024, 600), (512, 300)),
        ((64, 48), (64, 48)),
        ((3, 2000), (1, 512)),
        ((2, 4000), (1, 512)),
    ],
)
def test_only_large_frames_are_reduced(size: tuple[int, int], small: tuple[int, int]) -> None:
    across = torch.linspace(0, 1, size[1]).expand(3, *size)
    frame = shrink(across)
    assert frame.shape == (*small, 3)
    torch.testing.assert_close(frame[0, :, 0], torch.linspace(0, 1, small[1]), atol=2 / small[1], rtol=0)
