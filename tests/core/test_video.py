from __future__ import annotations

import struct
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from microcinema_core.frames import combine
from microcinema_core.frames.orientation import shown_upright
from microcinema_core.frames.rates import frame_rate, frames_per_kept


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def ramp(count: int, start: int = 0) -> Tensor:
    """Return frames filled with their own number."""
    return (torch.arange(count) + start).float().reshape(-1, 1, 1, 1).expand(count, 3, 2, 2)


def numbers(clip: Tensor) -> list[float]:
    return clip[:, 0, 0, 0].tolist()


def test_join_keeps_every_frame() -> None:
    joined = combine.join_segments({"images": ramp(3), "images_2": ramp(2, 3), "images_4": ramp(1, 5)})
    assert numbers(joined) == [0, 1, 2, 3, 4, 5]


def test_a_cross_fade_of_one_shows_a_shared_frame_once() -> None:
    joined = combine.join_segments({"images": ramp(5), "images_2": ramp(5, 4)}, cross_fade=1)
    assert numbers(joined) == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_cross_fade_blends_evenly() -> None:
    segments = {"images": torch.zeros(5, 3, 2, 2), "images_2": torch.ones(4, 3, 2, 2)}
    assert numbers(combine.join_segments(segments, cross_fade=3)) == [0, 0, 0.25, 0.5, 0.75, 1]


def test_cross_fade_needs_enough_frames() -> None:
    ends = {"images": ramp(4), "images_2": ramp(5), "images_3": ramp(4)}
    assert len(combine.join_segments(ends, cross_fade=2)) == 9
    with pytest.raises(ValueError, match="images_2, which has 5"):
        combine.join_segments(ends, cross_fade=3)


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="images is 4 x 2 and images_2 is 6 x 2"):
        combine.join_segments({"images": torch.zeros(1, 3, 2, 4), "images_2": torch.zeros(1, 3, 2, 6)})


def test_play() -> None:
    assert numbers(combine.playback_frames(ramp(4), ping_pong=True)) == [0, 1, 2, 3, 2, 1]
    assert numbers(combine.playback_frames(ramp(2), ping_pong=True, repeat=2)) == [0, 1, 0, 1]
    assert numbers(combine.playback_frames(ramp(1), ping_pong=True, repeat=3)) == [0, 0, 0]
    with pytest.raises(ValueError, match="repeat"):
        combine.playback_frames(ramp(1), repeat=0)


def test_a_shared_frame_is_shown_once() -> None:
    segments = {"images": ramp(5), "images_2": ramp(5, 4), "images_3": ramp(2, 8)}
    assert numbers(combine.join_segments(segments, skip_shared=True)) == list(range(10))
    with pytest.raises(ValueError, match="images_2 has one frame"):
        combine.join_segments({"images": ramp(2), "images_2": ramp(1)}, skip_shared=True)


def test_a_shared_frame_goes_before_the_clips_fade() -> None:
    segments = {"images": torch.zeros(5, 3, 2, 2), "images_2": torch.ones(4, 3, 2, 2)}
    joined = combine.join_segments(segments, skip_shared=True, cross_fade=3)
    assert numbers(joined) == [0, 0, 0.25, 0.5, 0.75]


def test_a_loop_closes_as_clips_join() -> None:
    around = torch.cat([ramp(4), ramp(1)])  # ends with the frame that it began with
    assert numbers(combine.close_loop(around, skip_shared=True)) == [0, 1, 2, 3]
    assert numbers(combine.close_loop(ramp(4))) == [0, 1, 2, 3]
    faded = numbers(combine.close_loop(ramp(8), cross_fade=3))
    assert faded == pytest.approx([5 * 0.75 + 0 * 0.25, (6 + 1) / 2, 7 * 0.25 + 2 * 0.75, 3, 4])
    with pytest.raises(ValueError, match=r"needs 6 frames or more, but the clip has 5\. Use at most 2"):
        combine.close_loop(ramp(5), cross_fade=3)


def test_back_and_forth_is_a_loop_by_itself() -> None:
    segments = {"images": ramp(4) / 8}
    both = combine.combine_frames(segments, loop=True, ping_pong=True, cross_fade=2)
    back = combine.combine_frames(segments, ping_pong=True, cross_fade=2)
    torch.testing.assert_close(both.frames, back.frames)


def test_the_report_counts_and_measures() -> None:
    grey = torch.full((4, 3, 8, 8), 0.5)
    drifting = torch.cat([grey, grey[:1] * 1.1])
    clip = combine.combine_frames({"images": drifting}, colour_anchor=grey[:1])
    assert clip.drift[:4].max() < 1e-3 < 2 < clip.drift[4] and clip.remaining_drift is clip.drift
    report = combine.describe_video(clip, 2.5)
    assert report.startswith("5 frames at 2.5 a second: 2.000 s. Colour drift")
    assert "(frame 4)" in report and "after" not in report
    matched = combine.combine_frames({"images": drifting}, colour_anchor=grey[:1], colour_strength=1.0)
    assert matched.remaining_drift.max() < 0.1
    assert "after correction 0.0 on average" in combine.describe_video(matched, 2.5)


def test_the_anchor_is_the_first_segments_centre_unless_given() -> None:
    frames, more = noise(9, 3, 8, 8) * 0.5 + 0.2, noise(3, 3, 8, 8, seed=1)
    clip = combine.combine_frames({"images": frames, "images_2": more}, colour_strength=1.0).frames
    torch.testing.assert_close(clip[4], frames[4], rtol=0, atol=2e-3)
    torch.testing.assert_close(clip[-1].mean(dim=(1, 2)), frames[4].mean(dim=(1, 2)), rtol=0, atol=0.03)
    given = combine.combine_frames({"images": frames}, colour_strength=1.0, colour_anchor=frames[:1]).frames
    torch.testing.assert_close(given[0], frames[0], rtol=0, atol=2e-3)


def test_combine_takes_grey_and_alpha_and_names_what_is_wrong() -> None:
    clip = combine.combine_frames({"images": noise(2, 1, 4, 4), "images_2": noise(2, 4, 4, 4)})
    assert clip.frames.shape == (4, 3, 4, 4)
    broken = noise(5, 3, 4, 4)
    broken[3] = torch.nan
    with pytest.raises(ValueError, match=r"images_3 holds NaN .* first in number 3"):
        combine.combine_frames({"images": noise(1, 3, 4, 4), "images_3": broken})
    with pytest.raises(ValueError, match="images holds no picture"):
        combine.combine_frames({"images": torch.zeros(0, 3, 4, 4)})


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (4, 5), (1, 1)])
def test_even_sizes(size: tuple[int, int]) -> None:
    frames = noise(2, 3, *size)
    padded = combine.pad_to_even(frames)
    assert all(side % 2 == 0 for side in padded.shape[-2:])
    torch.testing.assert_close(padded[..., : size[0], : size[1]], frames)


def test_frame_rate_is_exact() -> None:
    assert frame_rate(32.0) == 32
    assert frame_rate(23.976) == Fraction(2997, 125)
    assert frame_rate(2 / 3) == Fraction(2, 3)
    assert frame_rate(0.01) == Fraction(1, 100)
    for fps in (0.0, -8.0, float("nan"), float("inf"), 1e-5, 5e-324):
        with pytest.raises(ValueError, match="fps"):
            frame_rate(fps)


def test_audio() -> None:
    stereo = {"waveform": noise(2, 2, 100), "sample_rate": 44100.0}
    plain = combine.prepare_audio(stereo)
    assert plain is not None and plain["waveform"].shape == (1, 2, 100) and plain["sample_rate"] == 44100
    surround = combine.prepare_audio({"waveform": noise(1, 6, 100), "sample_rate": 48000})
    assert surround is not None and surround["waveform"].shape == (1, 1, 100)
    assert combine.prepare_audio({"waveform": torch.zeros(1, 2, 0), "sample_rate": 48000}) is None


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [(44100, 44100), (40000, 44100), (44099, 44100), (7000, 8000), (192000, 96000)],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_audio_of_any_rate_keeps_its_tone_and_length(rate: int, wanted: int, channels: int) -> None:
    times, tone = torch.arange(rate // 2) / rate, 200.0
    wave = torch.sin(2 * torch.pi * tone * times).expand(1, channels, -1)
    made = combine.prepare_audio({"waveform": wave, "sample_rate": rate})
    assert made is not None and made["sample_rate"] == wanted
    out = made["waveform"]
    assert out.shape[:2] == (1, channels)
    assert out.shape[-1] / wanted == pytest.approx(len(times) / rate, abs=0.02)
    spectrum = torch.fft.rfft(out[0, 0]).abs()
    assert float(spectrum.argmax()) * wanted / out.shape[-1] == pytest.approx(tone, rel=0.02)


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        ({"waveform": torch.full((1, 2, 9), float("nan")), "sample_rate": 44100}, "holds NaN"),
        ({"waveform": torch.full((1, 2, 9), float("inf")), "sample_rate": 44100}, "infinite samples"),
        ({"waveform": torch.zeros(1, 2, 9), "sample_rate": 0}, "a rate from 1,000 to 10,000,000"),
        ({"waveform": torch.zeros(1, 2, 9), "sample_rate": 1}, "a rate from 1,000 to 10,000,000"),
        ({"waveform": torch.zeros(1, 2, 9), "sample_rate": 10**9}, "a rate from 1,000 to 10,000,000"),
        ({"waveform": torch.full((1, 2, 9), -1e30), "sample_rate": 44100}, r"up to 1e\+30; from -1 to 1"),
        (
            {"waveform": torch.ones(1, 2, 9, dtype=torch.int16) * 9000, "sample_rate": 44100},
            "samples of up to 9000",
        ),
        ({"waveform": torch.zeros(1, 2, 9), "sample_rate": float("nan")}, "a rate from 1,000"),
        ({"waveform": torch.zeros(2, 9), "sample_rate": 44100}, "channels, samples"),
    ],
)
def test_audio_that_cannot_be_right(audio: dict, says: str) -> None:
    with pytest.raises(ValueError, match=f"^audio .*{says}"):
        combine.prepare_audio(audio)


@pytest.mark.parametrize(
    ("fps", "target", "every"),
    [(32, 0, 1), (32, 32, 1), (32, 16, 2), (32, 8, 4), (30, 10, 3), (23.976, 11.988, 2), (29.97, 15, 2)],
)
def test_rates_that_divide(fps: float, target: float, every: int) -> None:
    assert frames_per_kept(fps, target) == every


@pytest.mark.parametrize("target", [24.0, 64.0, 31.9, 1e-9, 5e-324])
def test_rates_that_do_not_divide_are_refused_with_those_that_do(target: float) -> None:
    with pytest.raises(ValueError, match=r"of 32 frames a second .* use 32, 16, 10.6667, 8 \.\.\., or 0"):
        frames_per_kept(32.0, target)


def test_every_nth_frame_is_kept_of_the_joined_frames() -> None:
    made = combine.combine_frames(
        {"images": ramp(9) / 10, "images_2": ramp(9, 8) / 10}, skip_shared=True, every=4
    )
    assert [round(10 * number) for number in numbers(made.frames)] == [0, 4, 8, 12, 16]
    assert len(made.drift) == 5
    back = combine.combine_frames({"images": ramp(9) / 10}, every=4, ping_pong=True, repeat=2)
    assert [round(10 * number) for number in numbers(back.frames)] == [0, 4, 8, 4] * 2


def test_a_loop_has_steps_of_one_length() -> None:
    """Eight frames with every fourth kept start again after four; with every third they would after two."""
    frames = {"images": ramp(9) / 10}
    made = combine.combine_frames(frames, loop=True, skip_shared=True, every=4)
    assert [round(10 * number) for number in numbers(made.frames)] == [0, 4]
    with pytest.raises(
        ValueError, match=r"every 3 frames, .* the loop's 8 frames: .* divided by 1 or 2 or 4 or 8,"
    ):
        combine.combine_frames(frames, loop=True, skip_shared=True, every=3)


def test_a_loop_of_one_shared_frame_names_skip_shared() -> None:
    with pytest.raises(ValueError, match=r"one frame, and skip_shared leaves out .* turn skip_shared off"):
        combine.combine_frames({"images": ramp(1)}, loop=True, skip_shared=True)


QUARTER = {
    "as stored": (1, 0, 0, 1),
    "90 clockwise": (0, 1, -1, 0),
    "180": (-1, 0, 0, -1),
    "270 clockwise": (0, -1, 1, 0),
    "mirrored left to right": (-1, 0, 0, 1),
    "mirrored top to bottom": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed across": (0, -1, -1, 0),
}
"""Display matrices (a, b, c, d)."""


@pytest.mark.parametrize("name", QUARTER)
def test_a_display_matrix_moves_every_pixel_as_its_formula_says(name: str) -> None:
    """x' = a x + c y, y' = b x + d y with x and y measured from the middle, pixel by pixel."""
    a, b, c, d = QUARTER[name]
    stored = torch.arange(4 * 6).reshape(4, 6, 1).numpy()
    one = 1 << 16
    matrix = struct.pack("=9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    shown = shown_upright(stored, matrix)
    height, width = shown.shape[:2]
    for y in range(4):
        for x in range(6):
            right, down = x - 2.5, y - 1.5
            column, row = a * right + c * down + (width - 1) / 2, b * right + d * down + (height - 1) / 2
            assert shown[int(row), int(column), 0] == stored[y, x, 0]
