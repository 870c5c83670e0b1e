"""TSR: given frames are kept bit for bit, noise is fixed per frame, and batching changes nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from microcinema_core.diffusion.tsr import (
    WINDOW,
    NoiseStream,
    Windows,
    fps_after,
    frames_after,
    interpolate,
    round_noise,
    window_starts,
    windows,
)
from microcinema_core.model_spec import WindowShape
from microcinema_core.networks.appearnet import interpolated_appearance


def keys(count: int) -> Tensor:
    return torch.randn(count, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def mixing(w: Windows) -> Tensor:
    """A stand-in for a sampler: depends on the noise, the appearance and the neighbours within a window."""
    x = (w.appearance + 0.1 * w.noise).unflatten(0, (-1, w.frames))
    return (x + 0.01 * x.mean(1, keepdim=True)).flatten(0, 1)


def exact(w: Windows) -> Tensor:
    """As `mixing`, without a sum whose order may depend on the batch, so that results are equal bit for bit."""
    x = (w.appearance + 0.1 * w.noise).unflatten(0, (-1, w.frames))
    return (x + 0.01 * x.roll(1, 1)).flatten(0, 1)


def test_nine_frames_become_33_and_129() -> None:
    assert [frames_after(9, r) for r in (0, 1, 2)] == [9, 33, 129]
    k = keys(9)
    out = interpolate(k, mixing, rounds=2, seed=5)
    assert out.shape[0] == 129
    assert torch.equal(out[::16], k)
    assert torch.equal(out[::4], interpolate(k, mixing, rounds=1, seed=5)), (
        "round two keeps round one's frames"
    )


@pytest.mark.parametrize("chunk", [1, 3, 8, lambda left: min(left, 2)])
def test_chunking_changes_nothing(chunk: object) -> None:
    k = keys(9)
    assert_close(interpolate(k, mixing, rounds=2, chunk=chunk), interpolate(k, mixing, rounds=2, chunk=100))  # type: ignore[arg-type]


def test_noise_is_of_seed_round_and_frame() -> None:
    a = round_noise(1, 0, 33, (4, 3, 3))
    assert torch.equal(a, round_noise(1, 0, 33, (4, 3, 3)))
    assert not torch.equal(a, round_noise(1, 1, 33, (4, 3, 3)))
    assert not torch.equal(round_noise(1, 1, 5, (1,)), round_noise(2, 0, 5, (1,)))
    w = windows(keys(9), a, [2, 3, 4])
    assert torch.equal(w.noise[:WINDOW], a[8:13]) and torch.equal(w.noise[WINDOW : 2 * WINDOW], a[12:17])


def test_windows_mask_the_given_frames() -> None:
    k = keys(3)
    w = windows(k, round_noise(0, 0, 9, (4, 3, 3)), [0, 1])
    assert w.mask.flatten().tolist() == [0, 1, 1, 1, 0] * 2
    assert (
        torch.equal(w.latents[0], k[0])
        and torch.equal(w.latents[4], k[1])
        and torch.equal(w.latents[9], k[2])
    )
    assert torch.equal(w.appearance[4], k[1]) and not w.latents[1:4].any()


@pytest.mark.parametrize(
    ("count", "rounds", "says"), [(1, 1, "1 key frame; it needs at least 2"), (2, 0, "rounds is 0")]
)
def test_what_cannot_be_interpolated_is_said(count: int, rounds: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        interpolate(keys(count), mixing, rounds=rounds)


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_papers_windows_bit_for_bit(rounds: int, chunk: int) -> None:
    """Against section 3.1 written out: four-fold, one pair a window, one generator per round."""
    made = interpolate(keys(6), exact, rounds=rounds, seed=11, chunk=chunk)
    expected = list(keys(6))
    for round_ in range(rounds):
        generator = torch.Generator().manual_seed((11 + (round_ + 1) * 0x9E3779B97F4A7C15) % 2**64)
        noise = torch.randn(4 * len(expected) - 3, 4, 3, 3, generator=generator)
        longer = []
        for pair, (first, last) in enumerate(pairwise(expected)):
            line = [
                first,
                first * 0.75 + last * 0.25,
                first * 0.5 + last * 0.5,
                first * 0.25 + last * 0.75,
                last,
            ]
            x = [line[i] + 0.1 * noise[4 * pair + i] for i in range(5)]
            longer += [first, *(x[i] + 0.01 * x[i - 1] for i in (1, 2, 3))]
        expected = [*longer, expected[-1]]
    assert torch.equal(made, torch.stack(expected))


SPARSE = WindowShape(factor=5, pairs=3)


@pytest.mark.parametrize(
    ("count", "starts"), [(16, [0, 3, 6, 9, 12]), (5, [0, 1]), (9, [0, 3, 5]), (4, [0]), (2, [0])]
)
def test_windows_cover_all_pairs_and_the_last_one_overlaps(count: int, starts: list[int]) -> None:
    assert window_starts(count, SPARSE) == starts
    assert window_starts(count) == list(range(count - 1))


@pytest.mark.parametrize("count", [16, 5, 3, 2])
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_longer_windows_against_a_plain_loop(count: int, chunk: int) -> None:
    """Each frame is of the first window that holds it; keys come back; noise is of the frame."""
    k = keys(count)
    made = interpolate(k, mixing, shape=SPARSE, seed=7, chunk=chunk)
    assert len(made) == 5 * (count - 1) + 1 == frames_after(count, 1, 5)
    assert fps_after(8.0, 1, 5) == 40
    assert torch.equal(made[::5], k)
    noise = round_noise(7, 0, len(made), (4, 3, 3))
    pairs = min(3, count - 1)
    expected: dict[int, Tensor] = {}
    for start in window_starts(count, SPARSE):
        frames = range(5 * start, 5 * (start + pairs) + 1)
        line = [torch.lerp(k[f // 5], k[min(f // 5 + 1, count - 1)], f % 5 / 5) for f in frames]
        x = torch.stack(line) + 0.1 * noise[frames.start : frames.stop]
        for f, value in zip(frames, x + 0.01 * x.mean(0), strict=True):
            expected.setdefault(f, value)
    for f in range(len(made)):
        if f % 5:
            assert_close(made[f], expected[f])


@pytest.mark.parametrize(("count", "frames"), [(16, 76), (5, 21), (2, 6)])
@pytest.mark.parametrize("chunk", [1, 2, lambda left: min(left, 3)])
def test_chunks_of_longer_windows_change_no_bit(count: int, frames: int, chunk: object) -> None:
    whole = interpolate(keys(count), exact, shape=SPARSE, seed=3, chunk=100)
    assert len(whole) == frames
    assert torch.equal(interpolate(keys(count), exact, shape=SPARSE, seed=3, chunk=chunk), whole)  # type: ignore[arg-type]


def test_overlapping_windows_share_their_frames() -> None:
    """Frames 5 to 15 stand in both windows, with the same noise, line and key frames."""
    noise = round_noise(0, 0, 21, (4, 3, 3))
    w = windows(keys(5), noise, window_starts(5, SPARSE), SPARSE)
    for held in (w.noise, w.appearance, w.latents):
        first, second = held.unflatten(0, (2, 16))
        assert torch.equal(first[5:], second[:11])
    first, second = w.noise.unflatten(0, (2, 16))
    assert torch.equal(first, noise[:16]) and torch.equal(second, noise[5:])


def test_few_keys_make_one_shorter_window() -> None:
    w = windows(keys(2), round_noise(0, 0, 6, (4, 3, 3)), window_starts(2, SPARSE), SPARSE)
    assert (w.frames, w.given) == (6, (0, 5))
    assert len(w.noise) == len(w.latents) == len(w.mask) == len(w.appearance) == 6


def test_halves_of_three_longer_windows() -> None:
    w = windows(keys(10), round_noise(0, 0, 46, (4, 3, 3)), window_starts(10, SPARSE), SPARSE)
    first, second = w.halves()
    assert (len(first.noise), len(second.noise)) == (32, 16)
    assert first.frames == second.frames == 16 and first.given == second.given == w.given
    for name in ("noise", "latents", "mask", "appearance"):
        assert torch.equal(torch.cat([getattr(first, name), getattr(second, name)]), getattr(w, name))


def test_sparse_windows_name_their_key_frames() -> None:
    w = windows(keys(4), round_noise(0, 0, 16, (4, 3, 3)), [0], SPARSE)
    assert w.frames == 16 and w.given == (0, 5, 10, 15)
    assert w.mask.flatten().nonzero().flatten().tolist() == [i for i in range(16) if i % 5]
    first, second = windows(keys(7), round_noise(0, 0, 31, (4, 3, 3)), [0, 3], SPARSE).halves()
    assert len(first.noise) == len(second.noise) == 16 and second.given == w.given


def test_the_papers_line_is_section_3s() -> None:
    k = keys(2)
    w = windows(k, round_noise(0, 0, 5, (4, 3, 3)), [0])
    assert torch.equal(w.appearance, interpolated_appearance(k[:1], k[1:]))


@pytest.mark.parametrize("shape", [(4, 8, 8), (8, 5, 6), (4, 2, 2)])
def test_noise_that_is_drawn_as_it_is_needed_is_that_of_one_draw(shape: tuple[int, int, int]) -> None:
    """Parts of any length that share a frame, as those of a long video."""
    whole = round_noise(11, 1, 200, shape)
    stream = NoiseStream(11, 1, shape)
    for first, last in ((0, 4), (4, 64), (64, 65), (64, 130), (130, 199)):
        assert torch.equal(stream(first, last - first + 1), whole[first : last + 1])
        assert len(stream.held) < last - first + 1 + NoiseStream.BLOCK, "what is past is let go"


def test_noise_of_odd_frames_differs_in_its_last_sixteen_values_only() -> None:
    whole = round_noise(11, 0, 37, (4, 5, 9))
    stream = NoiseStream(11, 0, (4, 5, 9))(0, 37)
    assert torch.equal(stream.flatten()[:-16], whole.flatten()[:-16])


def test_a_part_with_its_own_noise_is_that_part_of_the_whole() -> None:
    k = keys(9)
    whole = interpolate(k, exact, rounds=2, seed=3)
    noises = [round_noise(3, round_, frames_after(9, round_ + 1), (4, 3, 3)) for round_ in (0, 1)]
    part = interpolate(
        k[2:6],
        exact,
        rounds=2,
        noise=lambda round_, frames, shape: noises[round_][2 * 4 ** (round_ + 1) :][:frames],
    )
    assert torch.equal(part, whole[32 : 5 * 16 + 1])
