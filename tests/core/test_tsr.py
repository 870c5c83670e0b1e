"""TSR: given frames are kept bit for bit, noise is fixed per frame, and batching changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from microcinema_core.diffusion.tsr import (
    WINDOW,
    Windows,
    frames_after,
    interpolate,
    round_noise,
    windows,
)


def keys(count: int) -> Tensor:
    return torch.randn(count, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def mixing(w: Windows) -> Tensor:
    """A stand-in for a sampler: depends on the noise, the appearance and the neighbours within a window."""
    x = (w.appearance + 0.1 * w.noise).unflatten(0, (-1, WINDOW))
    return (x + 0.01 * x.mean(1, keepdim=True)).flatten(0, 1)


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
    w = windows(keys(9), a, 2, 3)
    assert torch.equal(w.noise[:WINDOW], a[8:13]) and torch.equal(w.noise[WINDOW : 2 * WINDOW], a[12:17])


def test_windows_mask_the_given_frames() -> None:
    k = keys(3)
    w = windows(k, round_noise(0, 0, 9, (4, 3, 3)), 0, 2)
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
