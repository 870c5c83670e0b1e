"""The files in weights/: what they say of themselves, their size, and that the video moves and keeps its looks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from microcinema_core.config import UNetConfig
from microcinema_core.diffusion.video_model import VideoModel
from microcinema_core.files.checkpoint import Checkpoint, load_strict, read_checkpoint
from microcinema_core.networks.text import TextConfig, TextEncoder
from microcinema_core.networks.unet import UNet3D

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


def read(role: str) -> Checkpoint:
    return read_checkpoint(WEIGHTS / f"mini_{role}.safetensors", expect_roles=(role,))


def float_parts(checkpoint: Checkpoint, part: str) -> dict[str, Tensor]:
    return {key: tensor.float() for key, tensor in checkpoint.part(part).items()}


@pytest.mark.parametrize(
    ("role", "parts", "lambda_", "residual", "fps", "frames"),
    [
        ("image", {"unet", "text", "vae"}, 0.0, 0.0, 0.0, 1),
        ("base", {"unet", "appearnet"}, 0.03, 0.0, 2.0, 9),
        ("tsr", {"unet", "appearnet"}, 0.0, 0.3, 8.0, 5),
    ],
)
def test_a_file_says_what_it_is(
    role: str, parts: set[str], lambda_: float, residual: float, fps: float, frames: int
) -> None:
    file = read(role)
    assert (set(file.parts), file.lambda_, file.residual) == (parts, lambda_, residual)
    assert (file.fps, file.frames) == (fps, frames)
    assert {t.dtype for name in parts for t in file.parts[name].values() if t.is_floating_point()} == {
        torch.float16
    }
    load_strict(UNet3D(UNetConfig.from_dict(file.configs["unet"])), file.part("unet"), "the U-Net")


@pytest.mark.parametrize("role", ["image", "base", "tsr"])
def test_a_file_tells_no_place_of_the_machine_that_made_it(role: str) -> None:
    assert not [text for text in read(role).metadata.values() if '"/' in text or text.startswith("/")]


def test_all_together_stay_small() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.glob("*.safetensors")) < 60e6


@torch.no_grad()
def test_key_frames_move_and_the_centre_one_is_kept() -> None:
    """Beside their baselines: a repeated frame does not move, and without AppearNet the centre frame is lost."""
    image = read("image")
    model = VideoModel.from_checkpoint(read("base"))
    text = TextEncoder(TextConfig.from_dict(image.configs["text"]))
    load_strict(text, float_parts(image, "text"), "the text encoder")
    context = text(torch.tensor([[49406] + [49407] * 76]))
    z_c = torch.zeros(1, 8, 16, 16)
    z_c[:, :, 4:12, 4:12] = torch.tensor([1.5, -1.0, 0.5, 1.0, -0.5, 1.0, 0.0, -1.0])[:, None, None]

    def sample(strength: float) -> Tensor:
        clip = model.sample(z_c, context, context, frames=9, steps=8, guidance_scale=1.0, strength=strength)
        return clip[0]

    made, without = sample(1.0), sample(0.0)
    assert made.diff(dim=0).abs().mean() > 0.01
    assert (made[4] - z_c[0]).square().mean() < 0.5 * (without[4] - z_c[0]).square().mean()
    assert made.isfinite().all()
