"""The files in weights/: their metadata, their size, and that sampled clips move and keep their appearance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from devtools.release.gallery.parts import MINI_BASE, MINI_IMAGE, MINI_TSR
from microcinema_core.config import (
    CONTEXT_LENGTH,
    END_TOKEN,
    START_TOKEN,
    UNetConfig,
    centre_index,
)
from microcinema_core.files.checkpoint import Checkpoint, load_strict, read_checkpoint
from microcinema_core.files.load_networks import load_text_encoder, load_video_model
from microcinema_core.networks.unet import UNet3D

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


def read(role: str) -> Checkpoint:
    return read_checkpoint(WEIGHTS / f"mini_{role}.safetensors", expect_roles=(role,))


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
    assert (set(file.parts), file.spec.lambda_, file.spec.residual) == (parts, lambda_, residual)
    assert (file.spec.fps, file.spec.frames) == (fps, frames)
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
    """Compared with baselines: a repeated frame does not move, and without AppearNet the centre frame is lost."""
    image = read("image")
    model = load_video_model(read("base"))
    text = load_text_encoder(image)
    context = text(torch.tensor([[START_TOKEN, *[END_TOKEN] * (CONTEXT_LENGTH - 1)]]))
    z_c = torch.zeros(1, 8, 16, 16)
    z_c[:, :, 4:12, 4:12] = torch.tensor([1.5, -1.0, 0.5, 1.0, -0.5, 1.0, 0.0, -1.0])[:, None, None]

    def sample(strength: float) -> Tensor:
        clip = model.sample(z_c, context, context, frames=9, steps=8, guidance_scale=1.0, strength=strength)
        return clip[0]

    made, without = sample(1.0), sample(0.0)
    assert made.diff(dim=0).abs().mean() > 0.01
    centre = centre_index(9)
    assert (made[centre] - z_c[0]).square().mean() < 0.5 * (without[centre] - z_c[0]).square().mean()
    assert made.isfinite().all()


@pytest.mark.parametrize(("role", "set_in"), [("image", MINI_IMAGE), ("base", MINI_BASE), ("tsr", MINI_TSR)])
def test_the_workflows_set_what_a_file_recommends(role: str, set_in: dict[str, object]) -> None:
    given = read(role).spec.sampling.to_dict()
    settings = {name: value for name, value in set_in.items() if name != "frames"}
    assert settings.items() <= {**given, "sampler_name": given["sampler"]}.items()
