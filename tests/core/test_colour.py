from __future__ import annotations

import pytest
import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor

from microcinema_core.frames.colour import colour_drift, match_colours


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def muted(*shape: int) -> Tensor:
    """Return muted colours, which stay in the RGB gamut after a small change."""
    return 0.4 + 0.2 * noise(*shape)


def shifted(frames: Tensor, shift: tuple[float, float, float], gain: float = 1.0) -> Tensor:
    """Return the frames with contrast and mean changed in L*a*b*."""
    lab = rgb_to_lab(frames)
    mean = lab.mean(dim=(2, 3), keepdim=True)
    return lab_to_rgb((lab - mean) * gain + mean + torch.tensor(shift).reshape(1, 3, 1, 1))


def test_full_strength_undoes_a_shift_and_a_loss_of_contrast() -> None:
    anchor = muted(1, 3, 16, 16)
    drifted = torch.cat(
        [anchor, shifted(anchor, (6.0, -4.0, 3.0)), shifted(anchor, (-5.0, 2.0, 4.0), gain=0.8)]
    )
    matched = match_colours(drifted, anchor, strength=1.0)
    torch.testing.assert_close(matched, anchor.expand(3, -1, -1, -1), rtol=0, atol=2e-3)
    half = match_colours(drifted, anchor, strength=0.5)
    torch.testing.assert_close(half, (drifted + matched) / 2)
    assert match_colours(drifted, anchor, strength=0.0) is drifted


def test_a_flat_frame_only_takes_the_mean() -> None:
    anchor = muted(1, 3, 8, 8)
    matched = match_colours(torch.full((1, 3, 8, 8), 0.2), anchor, strength=1.0)
    assert matched.std(dim=(2, 3)).max() < 1e-5
    assert colour_drift(matched, anchor) < 0.5


def test_more_frames_than_are_converted_at_once() -> None:
    frames, anchor = muted(35, 3, 8, 8), muted(1, 3, 8, 8)
    one_by_one = torch.cat([match_colours(frame[None], anchor, strength=1.0) for frame in frames])
    torch.testing.assert_close(match_colours(frames, anchor, strength=1.0), one_by_one)
    assert colour_drift(frames, anchor).shape == (35,)


def test_drift_is_the_distance_of_the_mean_colours() -> None:
    anchor = torch.full((1, 3, 200, 100), 0.5)  # larger than what is measured, and not square
    drifted = torch.cat([anchor, shifted(anchor, (3.0, 0.0, 4.0)), shifted(anchor, (0.0, -8.0, 0.0))])
    torch.testing.assert_close(
        colour_drift(drifted, anchor), torch.tensor([0.0, 5.0, 8.0]), rtol=0, atol=0.02
    )
    smaller = anchor[..., :50, :50]
    torch.testing.assert_close(
        colour_drift(drifted, smaller), colour_drift(drifted, anchor), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_is_from_0_to_1(strength: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        match_colours(muted(1, 3, 4, 4), muted(1, 3, 4, 4), strength=strength)
