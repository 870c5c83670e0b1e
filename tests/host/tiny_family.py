"""The tiny family, loaded in the host's process, and sampling from it with the stock sampler."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from devtools.check import tiny

FRAMES, STEPS = 3, 2


def load_family(folder: Path, **written: Any) -> types.SimpleNamespace:
    """The tiny family, loaded, with conditioning and a centre frame; `written` as in `tiny.write_family`."""
    from microcinema_core import adapter

    tiny.write_family(folder, dtype=torch.float32, **written)
    image = adapter.load_checkpoint(folder / "tiny_image.safetensors")
    base = adapter.load_checkpoint(folder / "tiny_base.safetensors")
    tsr = adapter.load_checkpoint(folder / "tiny_tsr.safetensors")
    generator = torch.Generator().manual_seed(5)

    def text(seed: int) -> Any:
        context = torch.randn(1, 77, tiny.CONTEXT, generator=torch.Generator().manual_seed(seed))
        return [[context, {}]]

    return types.SimpleNamespace(
        adapter=adapter,
        folder=folder,
        image=image,
        base=base,
        tsr=tsr,
        centre={"samples": torch.randn(1, 8, 8, 8, generator=generator)},
        keys={"samples": torch.randn(3, 8, 8, 8, generator=generator)},
        positive=text(1),
        negative=text(2),
    )


def empty(frames: int = FRAMES) -> dict[str, Tensor]:
    return {"samples": torch.zeros(frames, 8, 8, 8)}


def ksampler(family: Any, model: Any, latent: dict[str, Tensor] | None = None, **changes: Any) -> Tensor:
    """The stock KSampler node."""
    import nodes

    settings = {
        "seed": 7,
        "steps": STEPS,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "positive": family.positive,
        "negative": family.negative,
    } | changes
    with torch.inference_mode():
        return nodes.KSampler().sample(model, latent_image=latent or empty(), **settings)[0]["samples"]


def settings(family: Any, **changes: Any) -> Any:
    values = {
        "positive": family.positive,
        "negative": family.negative,
        "seed": 7,
        "steps": STEPS,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
    } | changes
    return family.adapter.SamplerSettings(**values)


def applied(family: Any, **changes: Any) -> Any:
    return family.adapter.apply_appearance(family.base.model, family.base.appearnet, family.centre, **changes)
