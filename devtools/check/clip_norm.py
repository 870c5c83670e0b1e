"""Measure what eq. 1's norm over a clip changes in an image model: `python3 dev.py python -m devtools.check.clip_norm`.

An image model is inflated twice: with norms over each frame, which equals the image model bit for bit, and over the
clip. Neither is trained. Both make clips of nine frames from the same texts and noise; each frame has noise of its own,
as in a batch of the stock KSampler. The difference of their pictures is the deviation from the image model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.data.tokens import CaptionTokenizer
from microcinema_core.diffusion.ddim import classifier_free_guidance, ddim
from microcinema_core.diffusion.schedule import NoiseSchedule, denoiser
from microcinema_core.files.checkpoint import Checkpoint, load_strict, read_checkpoint
from microcinema_core.files.inflate import inflate
from microcinema_core.files.load_networks import load_text_encoder, load_vae
from microcinema_core.files.paths import home_folder, tokenizer_folder
from microcinema_core.networks.unet import UNet3D

from ..run.home import ROOT

FRAMES, SIDE = 9, 16
"""Frames of a clip, and the latents' side for which the mini models were trained."""
CAPTIONS = (
    "a red heart on a white background",
    "a cat on a white background",
    "a yellow face on a white background",
    "a flag on a white background",
    "a tree on a blue background",
    "a red car on a green background",
    "a pizza on a white background",
    "a house on a blue background",
)


def inflated(image: Checkpoint, injected_norm: str) -> UNet3D:
    """Return an image model's U-Net, inflated and untrained."""
    video = inflate(image.part("unet"), config=image.config("unet"), injected_norm=injected_norm)
    unet = UNet3D(video.unet_config)
    load_strict(unet, video.unet, "the inflated U-Net")
    return unet.eval().requires_grad_(False).float()


def sample(
    unet: UNet3D,
    image: Checkpoint,
    text: Tensor,
    empty: Tensor,
    noise: Tensor,
    *,
    steps: int,
    guidance: float,
) -> Tensor:
    """Sample one clip's latents `f c h w` from noise of that shape; the texts are `1 l d`."""
    schedule = NoiseSchedule.from_spec(image.spec)

    def network(context: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, t: unet(x, t, context.expand(len(x), -1, -1), frames=len(x))

    with_text, without = (denoiser(network(one), schedule, image.spec.prediction) for one in (text, empty))
    guided = classifier_free_guidance(with_text, without, guidance)
    return ddim(guided, noise, steps=steps, schedule=schedule)


@torch.no_grad()
def measure(file: Path, *, clips: int, steps: int, guidance: float) -> dict[str, float | int | str]:
    """Return the deviation over `clips` clips, in percent of the pictures' range and in dB."""
    image = read_checkpoint(file, expect_roles=("image",))
    vae, encoder = load_vae(image), load_text_encoder(image)
    tokens = CaptionTokenizer(tokenizer_folder(home_folder()))
    empty = encoder(tokens([""]).long())
    unets = {norm: inflated(image, norm) for norm in ("frame", "clip")}
    channels = image.config("unet").in_channels
    errors, squares = [], []
    for number in range(clips):
        text = encoder(tokens([CAPTIONS[number % len(CAPTIONS)]]).long())
        noise = torch.randn(FRAMES, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(number))
        made = {
            norm: vae.decode(sample(unet, image, text, empty, noise, steps=steps, guidance=guidance)).clamp(
                -1, 1
            )
            for norm, unet in unets.items()
        }
        difference = (made["clip"] - made["frame"]) / 2
        errors.append(difference.abs().mean((1, 2, 3)))
        squares.append(difference.square().mean((1, 2, 3)))
    return {
        "file": file.name,
        "frames": clips * FRAMES,
        "mean_absolute_percent": round(100 * float(torch.cat(errors).mean()), 2),
        "largest_of_a_frame_percent": round(100 * float(torch.cat(errors).max()), 2),
        "psnr_db": round(float(-10 * torch.cat(squares).log10().mean()), 1),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.check.clip_norm", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--image", type=Path, default=ROOT / "weights" / "mini_image.safetensors", help="file of role image"
    )
    parser.add_argument("--clips", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="DDIM steps; default: %(default)s")
    parser.add_argument("--guidance", type=float, default=4.0, help="default: %(default)s")
    given = parser.parse_args()
    print(json.dumps(measure(given.image, clips=given.clips, steps=given.steps, guidance=given.guidance)))


if __name__ == "__main__":
    main()
