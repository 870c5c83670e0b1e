from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microcinema_core import video


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def ramp(count: int, start: int = 0) -> Tensor:
    """Frames that hold their own number."""
    return (torch.arange(count) + start).float().reshape(-1, 1, 1, 1).expand(count, 3, 2, 2)


def numbers(clip: Tensor) -> list[float]:
    return clip[:, 0, 0, 0].tolist()


def test_join_keeps_every_frame() -> None:
    joined = video.join_segments({"images": ramp(3), "images_2": ramp(2, 3), "images_4": ramp(1, 5)})
    assert numbers(joined) == [0, 1, 2, 3, 4, 5]


def test_a_cross_fade_of_one_shows_a_shared_frame_once() -> None:
    joined = video.join_segments({"images": ramp(5), "images_2": ramp(5, 4)}, cross_fade=1)
    assert numbers(joined) == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_cross_fade_blends_evenly() -> None:
    segments = {"images": torch.zeros(5, 3, 2, 2), "images_2": torch.ones(4, 3, 2, 2)}
    assert numbers(video.join_segments(segments, cross_fade=3)) == [0, 0, 0.25, 0.5, 0.75, 1]


def test_cross_fade_needs_enough_frames() -> None:
    ends = {"images": ramp(4), "images_2": ramp(5), "images_3": ramp(4)}
    assert len(video.join_segments(ends, cross_fade=2)) == 9
    with pytest.raises(ValueError, match="images_2, which has 5"):
        video.join_segments(ends, cross_fade=3)


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="images is 4 x 2 and images_2 is 6 x 2"):
        video.join_segments({"images": torch.zeros(1, 3, 2, 4), "images_2": torch.zeros(1, 3, 2, 6)})


def test_play() -> None:
    assert numbers(video.play(ramp(4), ping_pong=True)) == [0, 1, 2, 3, 2, 1]
    assert numbers(video.play(ramp(2), ping_pong=True, repeat=2)) == [0, 1, 0, 1]
    assert numbers(video.play(ramp(1), ping_pong=True, repeat=3)) == [0, 0, 0]
    with pytest.raises(ValueError, match="repeat"):
        video.play(ramp(1), repeat=0)


def test_full_strength_gives_the_anchors_statistics() -> None:
    anchor = 0.4 + 0.1 * noise(1, 3, 16, 16)
    drifted = (anchor * torch.tensor([1.2, 0.9, 1.0]).reshape(1, 3, 1, 1) + 0.05).expand(3, -1, -1, -1)
    torch.testing.assert_close(
        video.match_colours(drifted, anchor, strength=1.0), anchor.expand(3, -1, -1, -1)
    )
    half = video.match_colours(drifted, anchor, strength=0.5)
    torch.testing.assert_close(half, (drifted + anchor) / 2)
    assert video.match_colours(drifted, anchor, strength=0.0) is drifted


def test_a_flat_frame_only_takes_the_mean() -> None:
    matched = video.match_colours(torch.zeros(1, 3, 4, 4), noise(1, 3, 4, 4), strength=1.0)
    assert matched.std(dim=(2, 3)).max() < 1e-6


def test_the_anchor_is_the_first_segments_centre_unless_given() -> None:
    frames, more = noise(9, 3, 8, 8) * 0.5 + 0.2, noise(3, 3, 8, 8, seed=1)
    clip = video.combine({"images": frames, "images_2": more}, colour_strength=1.0)
    torch.testing.assert_close(clip[4], frames[4])
    torch.testing.assert_close(clip[-1].mean(dim=(1, 2)), frames[4].mean(dim=(1, 2)), rtol=0, atol=0.01)
    given = video.combine({"images": frames}, colour_strength=1.0, colour_anchor=frames[:1])
    torch.testing.assert_close(given[0], frames[0])


def test_combine_takes_grey_and_alpha_and_names_what_is_wrong() -> None:
    clip = video.combine({"images": noise(2, 1, 4, 4), "images_2": noise(2, 4, 4, 4)})
    assert clip.shape == (4, 3, 4, 4)
    broken = noise(5, 3, 4, 4)
    broken[3] = torch.nan
    with pytest.raises(ValueError, match=r"images_3 holds NaN .* first in number 3"):
        video.combine({"images": noise(1, 3, 4, 4), "images_3": broken})
    with pytest.raises(ValueError, match="images holds no picture"):
        video.combine({"images": torch.zeros(0, 3, 4, 4)})


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (4, 5), (1, 1)])
def test_even_sizes(size: tuple[int, int]) -> None:
    frames = noise(2, 3, *size)
    padded = video.pad_to_even(frames)
    assert all(side % 2 == 0 for side in padded.shape[-2:])
    torch.testing.assert_close(padded[..., : size[0], : size[1]], frames)


def test_frame_rate_is_exact() -> None:
    assert video.frame_rate(32.0) == 32
    assert video.frame_rate(23.976) == Fraction(2997, 125)
    assert video.frame_rate(2 / 3) == Fraction(2, 3)
    for fps in (0.0, -8.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fps"):
            video.frame_rate(fps)


def test_audio() -> None:
    stereo = {"waveform": noise(2, 2, 100), "sample_rate": 44100.0}
    plain = video.check_audio(stereo)
    assert plain is not None and plain["waveform"].shape == (1, 2, 100) and plain["sample_rate"] == 44100
    surround = video.check_audio({"waveform": noise(1, 6, 100), "sample_rate": 48000})
    assert surround is not None and surround["waveform"].shape == (1, 1, 100)
    assert video.check_audio({"waveform": torch.zeros(1, 2, 0), "sample_rate": 48000}) is None


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: str) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        video.write_atomically(tmp_path / "new" / "clip.mp4", fail)
    assert list((tmp_path / "new").iterdir()) == []
    video.write_atomically(tmp_path / "clip.mp4", lambda path: Path(path).write_bytes(b"whole"))
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["clip.mp4"]
