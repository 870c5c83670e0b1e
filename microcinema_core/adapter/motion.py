"""Published motion weights on a stock MODEL: AnimateDiff, PIA and SparseCtrl as MicroCinema networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..files.checkpoint import Checkpoint
from ..files.published import MotionModule, add_motion_lora, read_motion_module, read_sparsectrl
from ..model_spec import ModelSpec, SamplerDefaults, WindowShape
from .appearance import AppearNetHandle, require_numbers
from .loading import MissingPart, build_appearnet, build_model
from .stock_model import StockUNet, carry_over, stock_unet

MOTION_SPEC = ModelSpec(
    "unet",
    fps=8.0,
    frames=16,
    betas="linear",
    sampling=SamplerDefaults(steps=25, cfg=8.0, sampler="euler", scheduler="ddim_uniform", gamma=0.0),
)
"""AnimateDiff's training: clips of 16 frames at 8 fps, linear betas, no noise prior; and its authors' sampler, DDIM."""
CONTEXT_DIM = 768
"""Channels of the text of Stable Diffusion 1.x."""
SPARSECTRL_WINDOW = WindowShape(factor=5, pairs=3)
"""A clip of 16 frames with key frames at 0, 5, 10 and 15."""


def add_motion(
    model: Any, motion_file: Path, *, lora_file: Path | None = None, lora_strength: float = 1.0
) -> tuple[Any, AppearNetHandle | MissingPart]:
    """Return a video MODEL from a stock MODEL and a motion module, and PIA's APPEARNET where the file holds one.

    Args:
        model: a stock Stable Diffusion 1.x MODEL, with its LoRAs and patches; not changed.
        motion_file: a motion module of AnimateDiff version 2 or 3, or PIA's.
        lora_file: a motion LoRA.
        lora_strength: its factor.

    Raises:
        ValueError: as for `stock_unet`, `read_motion_module` and `add_motion_lora`, or a Stable Diffusion 2.x MODEL.
    """
    require_numbers(lora_strength=lora_strength)
    stock = stock_unet(model)
    if stock.config.context_dim != CONTEXT_DIM:
        raise ValueError(
            f"{motion_file.name}: this motion module belongs to Stable Diffusion 1.x, but the MODEL is another "
            f"(its text has {stock.config.context_dim} channels, {CONTEXT_DIM} were expected): connect a 1.x MODEL."
        )
    module = read_motion_module(motion_file, stock.config)
    temporal = module.temporal
    if lora_file is not None:
        temporal = add_motion_lora(temporal, lora_file, module.config, lora_strength)
    spec = replace(MOTION_SPEC, prediction=stock.prediction)
    temporal = {key: tensor.to(stock.dtype) for key, tensor in temporal.items()}
    checkpoint = Checkpoint(
        {"unet": {**stock.weights, **temporal}},
        spec,
        {"unet": module.config.to_dict()},
        name=module.name,
    )
    video = carry_over(model, build_model(checkpoint, dtypes=(stock.dtype, stock.manual_cast)), spec)
    return video, _pia(module, stock, spec)


def load_sparsectrl(path: Path) -> AppearNetHandle:
    """Load SparseCtrl as an APPEARNET; errors as for `read_sparsectrl`."""
    read = read_sparsectrl(path)
    spec = replace(MOTION_SPEC, role="appearnet", window=SPARSECTRL_WINDOW)
    return build_appearnet(
        Checkpoint({"appearnet": read.weights}, spec, {"appearnet": read.config.to_dict()}, name=read.name)
    )


def _pia(module: MotionModule, stock: StockUNet, spec: ModelSpec) -> AppearNetHandle | MissingPart:
    if module.appearnet_config is None or module.appearnet is None:
        return MissingPart(
            f"{module.name} is a motion module alone, without an AppearNet: choose a SparseCtrl file as "
            "appearance_file, or PIA as motion_file."
        )
    config = module.appearnet_config.to_dict()
    weights = {key: tensor.to(stock.dtype) for key, tensor in module.appearnet.items()}
    return build_appearnet(
        Checkpoint(
            {"appearnet": weights}, replace(spec, role="appearnet"), {"appearnet": config}, name=module.name
        )
    )
