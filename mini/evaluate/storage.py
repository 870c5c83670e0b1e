"""What storing weights in fewer bits costs: `python -m mini.evaluate.storage --image FILE --base FILE`.

Pictures and clips of the same prompts and noise, sampled in float32 by the shipped files and by the given ones. A small
error early in sampling can end in another picture of the same kind, so the error of a single call stands beside. For
scale, the shipped weights are also run in bfloat16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_image_model, load_video_model
from microcinema_core.metrics.psnr import decibels

from .evaluation_context import BASE, WEIGHTS
from .image_model import GUIDANCE, STEPS
from .mini_pipeline import FRAMES, MiniPipeline

PROMPTS = (
    "a flag of france", "a red heart", "a grinning face", "a pizza", "a horse", "an owl", "a house", "a rocket",
)  # fmt: skip
GROUND = " on a white background"
IMAGE, VIDEO = "mini_image.safetensors", "mini_base.safetensors"


def below(made: Tensor, exact: Tensor) -> float:
    """Return by how many dB the error is below the signal, both in power."""
    return float(10 * torch.log10(exact.var() / (made - exact).square().mean()))


@torch.no_grad()
def compare_images(file: Path, dtype: torch.dtype, pipeline: MiniPipeline) -> tuple[list[str], Tensor]:
    """Return the cells of an image file's row, and the shipped model's latents `n c h w`."""
    texts, generator = [prompt + GROUND for prompt in PROMPTS], torch.Generator().manual_seed(0)
    context, empty = pipeline.encode_text(texts), pipeline.encode_text([""])
    noise = torch.randn(len(texts), 8, 16, 16, generator=generator)
    t = torch.linspace(50, 950, len(texts))
    models = [
        load_image_model(read_checkpoint(WEIGHTS / IMAGE)),
        load_image_model(read_checkpoint(file), dtype=dtype),
    ]
    calls = [
        m.unet(noise.to(d), t, context.to(d)).float()
        for m, d in zip(models, (torch.float32, dtype), strict=True)
    ]
    exact, made = (m.sample(context, empty, noise, steps=STEPS, guidance_scale=GUIDANCE) for m in models)
    return [f"{below(calls[1], calls[0]):.1f}", *_pictures(pipeline, made[:, None], exact[:, None])], exact


@torch.no_grad()
def compare_clips(file: Path, dtype: torch.dtype, pipeline: MiniPipeline, centres: Tensor) -> list[str]:
    """Return the cells of a base file's row; both models animate the same centre frames `n c h w`."""
    context, empty = pipeline.encode_text([prompt + GROUND for prompt in PROMPTS]), pipeline.encode_text([""])
    t, z = torch.linspace(50, 950, len(centres)), torch.randn(len(centres), FRAMES, *centres.shape[1:])
    models = [
        load_video_model(read_checkpoint(WEIGHTS / VIDEO)),
        load_video_model(read_checkpoint(file), dtype=dtype),
    ]
    calls = [m.predict(z, t, context, m.injection(centres, t, context, 1.0)).float() for m in models]
    exact, made = (m.sample(centres, context, empty, frames=FRAMES, **asdict(BASE)) for m in models)
    return [f"{below(calls[1], calls[0]):.1f}", *_pictures(pipeline, made, exact)]


def _pictures(pipeline: MiniPipeline, made: Tensor, exact: Tensor) -> list[str]:
    shown = [pipeline.decode(latents) for latents in (made, exact)]
    errors = (shown[0] - shown[1]).square().flatten(1).mean(1)
    return [
        f"{below(made, exact):.1f}",
        f"{float(decibels(errors.mean())):.1f}",
        f"{float(decibels(errors.max())):.1f}",
    ]


def table(image: Path, base: Path) -> str:
    """Return the comparison as Markdown."""
    torch.manual_seed(0)
    pipeline = MiniPipeline.read(WEIGHTS / IMAGE)
    cells, centres = compare_images(image, torch.float32, pipeline)
    rows = {
        "image model": cells,
        "image model, float16 file in bfloat16": compare_images(WEIGHTS / IMAGE, torch.bfloat16, pipeline)[0],
        "base model": compare_clips(base, torch.float32, pipeline, centres),
        "base model, float16 file in bfloat16": compare_clips(
            WEIGHTS / VIDEO, torch.bfloat16, pipeline, centres
        ),
    }
    lines = [
        "| | one call, error below the output, dB | sampled latents, likewise | pictures, PSNR | the worst |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(row)} |" for name, row in rows.items())])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m mini.evaluate.storage", description=__doc__)
    parser.add_argument("--image", type=Path, required=True, help="an image file in another storage")
    parser.add_argument("--base", type=Path, required=True, help="a base file in another storage")
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(table(options.image, options.base) + "\n")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
