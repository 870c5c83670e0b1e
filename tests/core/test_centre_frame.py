from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from microcinema_core.config import VAEConfig
from microcinema_core.frames import centre_frame
from microcinema_core.networks.vae import FoldedVAE


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def prepare(pictures: Tensor, width: int = 32, height: int = 24, fit: str = "crop") -> Tensor:
    return centre_frame.prepare_centre_frame(pictures, width=width, height=height, fit=fit)


@pytest.mark.parametrize("fit", centre_frame.FITS)
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (24, 32), (25, 33), (77, 41), (300, 200)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_size_and_kind_gives_the_asked_size(fit: str, size: tuple[int, int], channels: int) -> None:
    frame = prepare(noise(1, channels, *size), fit=fit)
    assert frame.shape == (1, 3, 24, 32)
    assert frame.dtype == torch.float32
    assert torch.isfinite(frame).all()
    assert frame.min() >= 0 and frame.max() <= 1


def test_a_picture_of_the_right_size_is_untouched() -> None:
    picture = noise(1, 3, 24, 32)
    for fit in centre_frame.FITS:
        torch.testing.assert_close(prepare(picture, fit=fit), picture, rtol=0, atol=0)


def test_crop_keeps_the_middle() -> None:
    picture = torch.zeros(1, 3, 60, 200)
    picture[..., 60:140] = 1
    torch.testing.assert_close(prepare(picture), torch.ones(1, 3, 24, 32))


def test_pad_keeps_everything_on_white() -> None:
    frame = prepare(torch.zeros(1, 3, 10, 10), fit="pad")
    assert (frame[..., 4:28] == 0).all()
    assert (frame[..., :4] == 1).all() and (frame[..., 28:] == 1).all()


def test_stretch_keeps_the_borders() -> None:
    picture = torch.zeros(1, 3, 100, 10)
    picture[:, :, :50] = 1
    frame = prepare(picture, fit="stretch")
    assert frame[:, :, 0].min() > 0.99 and frame[:, :, -1].max() < 0.01


def test_transparency_is_laid_over_white() -> None:
    picture = torch.zeros(1, 4, 24, 32)
    picture[:, 3, :12] = 1
    frame = prepare(picture)
    assert (frame[:, :, :12] == 0).all() and (frame[:, :, 12:] == 1).all()


def test_grey_becomes_three_equal_channels() -> None:
    frame = prepare(noise(1, 1, 50, 50))
    assert (frame[:, 0] == frame[:, 1]).all() and (frame[:, 0] == frame[:, 2]).all()


@pytest.mark.parametrize("side", [130, 1000])
def test_fine_patterns_do_not_alias(side: int) -> None:
    """A checkerboard of single pixels becomes flat grey; plain subsampling turns it into stripes."""
    rows, columns = torch.arange(side)[:, None], torch.arange(side)[None]
    board = ((rows + columns) % 2).float().expand(1, 3, side, side)
    assert prepare(board, 32, 32).std() < 0.03
    assert F.interpolate(board, (32, 32), mode="bicubic").std() > 0.1


def test_larger_than_4k_keeps_place_and_mean() -> None:
    across = torch.linspace(0, 1, 4500).expand(1, 3, 64, 4500)
    frame = prepare(across, 128, 64, fit="stretch")
    ideal = (torch.arange(128) + 0.5) / 128
    torch.testing.assert_close(frame[0, 0, 32], ideal, rtol=0, atol=0.01)


def test_of_a_batch_the_first_is_taken() -> None:
    pictures = noise(3, 3, 24, 32)
    pictures[1] = torch.nan
    torch.testing.assert_close(prepare(pictures), pictures[:1])


@pytest.mark.parametrize("value", [1e30, -1e5])
def test_values_far_from_a_picture_s_are_named(value: float) -> None:
    picture = noise(1, 3, 8, 8)
    picture[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=r"centre frame holds values of up to .* from 0 to 1"):
        prepare(picture)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_is_named(value: float) -> None:
    picture = noise(1, 3, 8, 8)
    picture[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match="centre frame holds NaN or infinite values"):
        prepare(picture)


def test_empty_and_odd_input_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no picture"):
        prepare(torch.zeros(0, 3, 8, 8))
    with pytest.raises(ValueError, match="has 5"):
        prepare(torch.zeros(1, 5, 8, 8))
    with pytest.raises(ValueError, match="'cover'"):
        prepare(torch.zeros(1, 3, 8, 8), fit="cover")


@pytest.mark.parametrize(("asked", "size"), [(0, 320), (1, 8), (8, 8), (123, 120), (124, 128), (128, 128)])
def test_sizes_become_multiples_of_eight(asked: int, size: int) -> None:
    assert centre_frame.resolve_side(asked, 320) == size


def test_the_vae_tells_the_size() -> None:
    class HostVAE:
        def __init__(self, first_stage_model: torch.nn.Module) -> None:
            self.first_stage_model = first_stage_model

    mini = FoldedVAE(VAEConfig(widths=(32, 32), res_blocks=1, decoder_blocks=1))
    assert centre_frame.trained_size(HostVAE(mini)) == 128
    assert centre_frame.trained_size(HostVAE(torch.nn.Identity())) == 320
