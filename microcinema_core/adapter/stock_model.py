"""A stock Stable Diffusion MODEL as the image model inside a video model: its own weights, dtype, LoRAs and patches.

A LoRA is a patch that the host bakes into the weights while they are loaded. So the weights are read without patches,
and the patches carry over: a LoRA before the loader acts as one after it does, and never twice.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import Prediction, UNetConfig
from ..files.stable_diffusion import config_of
from ..model_spec import ModelSpec
from .host import comfy
from .model import MicroCinemaModel, with_window_check

NETWORK = "diffusion_model."
"""Prefix of the network's keys in the host's MODEL."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StockUNet:
    """The U-Net of a stock MODEL.

    Attributes:
        patcher: the MODEL.
        weights: its tensors without patches, under LDM keys; they share the MODEL's memory.
        config: its configuration.
        prediction: what it predicts.
        dtype, manual_cast: dtype of its weights, and the one that it computes in, or None for the same.
    """

    patcher: Any
    weights: dict[str, Tensor]
    config: UNetConfig
    prediction: Prediction
    dtype: torch.dtype
    manual_cast: torch.dtype | None


def stock_unet(patcher: Any) -> StockUNet:
    """Return the U-Net of a stock Stable Diffusion 1.x or 2.x MODEL.

    Raises:
        ValueError: a MODEL of another family, one whose weights are quantised, or one that another pack has changed.
    """
    inner = patcher.model
    network = getattr(inner, "diffusion_model", None)
    stock = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel
    if getattr(network, "num_classes", None) is not None and type(network) is stock:
        raise ValueError(
            f"this MODEL is {type(inner).__name__}; Stable Diffusion 1.x or 2.x was expected. SDXL can only draw the "
            "picture: connect the MODEL of a Stable Diffusion 1.5 checkpoint."
        )
    if isinstance(inner, MicroCinemaModel):
        raise ValueError(
            "this MODEL is a video model already; a stock Stable Diffusion 1.x or 2.x MODEL was expected: connect the "
            "one from Load Checkpoint."
        )
    if type(network) is not stock:
        raise ValueError(
            f"this MODEL is a {type(inner).__name__} with the network {type(network).__name__}; a stock Stable "
            "Diffusion 1.x or 2.x MODEL was expected: load one with Load Checkpoint."
        )
    if patcher.injections:
        raise ValueError(
            f"this MODEL was changed by another node pack ({', '.join(patcher.injections)}): connect the MODEL from "
            "before that node."
        )
    weights = {key.removeprefix(NETWORK): tensor for key, tensor in _unpatched(patcher).items()}
    _refuse_quantised(inner, weights)
    return StockUNet(
        patcher=patcher,
        weights=weights,
        config=config_of(weights),
        prediction=_prediction(patcher),
        dtype=inner.get_dtype(),
        manual_cast=inner.manual_cast_dtype,
    )


def _prediction(patcher: Any) -> Prediction:
    """Return what the network predicts, by the MODEL's sampling, which a node such as ModelSamplingDiscrete may set."""
    sampling = patcher.get_model_object("model_sampling")
    return "v" if isinstance(sampling, comfy.model_sampling.V_PREDICTION) else "eps"


def carry_over(stock: Any, video: Any, spec: ModelSpec) -> Any:
    """Give a video MODEL the patches, options and hooks of the stock MODEL that it was built from, and return it.

    A patch of the noise schedule gives way to the schedule of weights that have one of their own; what it says of the
    prediction is in `StockUNet` already.

    Args:
        stock: the stock MODEL; not changed.
        video: the new MODEL, whose weights have no patches yet.
        spec: what the weights were trained for.
    """
    kept = stock.clone()
    video.patches = kept.patches
    video.hook_patches = kept.hook_patches
    video.forced_hooks, video.hook_mode = kept.forced_hooks, kept.hook_mode
    video.weight_wrapper_patches = kept.weight_wrapper_patches
    video.model_options = kept.model_options
    video.attachments, video.additional_models = kept.attachments, kept.additional_models
    video.callbacks, video.wrappers = kept.callbacks, kept.wrappers
    for name, patch in kept.object_patches.items():
        if name == "model_sampling" and spec.betas != "scaled_linear":
            log.info(
                "MicroCinema: the MODEL's own noise schedule (%s) gives way to that of the motion weights (%s betas); "
                "nodes that change the schedule belong after this one.",
                type(patch).__name__,
                spec.betas,
            )
        elif name.startswith(NETWORK.removesuffix(".")):
            log.warning(
                "MicroCinema: the MODEL's patch of %s does not fit the video model and is left out.", name
            )
        else:
            video.add_object_patch(name, patch)
    return with_window_check(video)


def _unpatched(patcher: Any) -> dict[str, Tensor]:
    """Return the network's tensors as they are without LoRAs and hooks, also where those are baked in now."""
    found = patcher.get_key_patches(NETWORK)
    return {key: patches[0][0].detach() for key, patches in found.items()}


def _refuse_quantised(inner: Any, weights: dict[str, Tensor]) -> None:
    """Refuse weights that are no plain floating-point tensors, as GGUF's and scaled fp8's are not."""
    config = inner.model_config
    scaled = getattr(config, "scaled_fp8", None) is not None or getattr(config, "quant_config", None)
    plain = all(type(tensor) is Tensor and tensor.is_floating_point() for tensor in weights.values())
    if config.custom_operations is not None or scaled or not plain:
        raise ValueError(
            "this MODEL's weights are quantised (GGUF, scaled fp8 or the like), and motion weights cannot be added to "
            "them: load a safetensors file in fp16, bf16, fp32 or plain fp8 with Load Checkpoint."
        )
