"""Published video models in ModelScope's layout under MicroCinema's keys: the Crafter family, ModelScope, ZeroScope.

Formats: Doubiiu/DynamiCrafter, ToonCrafter/ToonCrafter and AILab-CVC/VideoCrafter (openaimodel3d.py in
lvdm/modules/networks), modelscope/modelscope (unet_sd.py in models/multi_modal/video_synthesis), diffusers
(UNet3DConditionModel). Every key of a file is accounted for; a file of another kind is refused with a sentence that
says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..config import TEMPORAL_LAYOUTS, AppearNetConfig, ResamplerConfig, UNetConfig
from ..messages import one_line
from ..model_spec import ModelSpec
from ..values import chosen, shown
from .crafter_keys import from_authors, from_unet_3d
from .crafter_specs import BASE_512, FRAMES, RESOLUTIONS, SPECS, USES
from .published import KINDS, kind_of, refuse_pickle
from .safetensors_io import LDM_PREFIX, Shapes, header_shapes, read_header, read_tensors, whole
from .stable_diffusion import config_of

_WRAPPERS = ("_forward_module.", "module.")
_RESAMPLER, _VAE, _SCALES = "image_proj_model.", "first_stage_model.", "scale_arr"
_DROPPED = re.compile(
    r"(cond_stage_model|embedder|model_ema)\..+|betas|scale_factor|lvlb_weights|logvar"
    r"|(log_|sqrt_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?|posterior_.+"
)
"""Encoders that the host loads from files of their own, averages, and tables that follow from the noise schedule."""
_OWN_DECODER = re.compile(r"first_stage_model\.decoder\..*(time_|attn_refinement)")
"""Keys of ToonCrafter's decoder, which sees the key frames."""
_BOTH_HALVES = {"encoder.conv_in.weight", "decoder.conv_in.weight"}
"""Keys of an autoencoder that both encodes and decodes; the host would fill a missing half with anything."""
_HEAD_WIDTH = 64
_KINDS = ("DynamiCrafter", "DynamiCrafter 256", "ToonCrafter", "VideoCrafter", "ModelScope")


@dataclass(frozen=True)
class Crafter:
    """A published video model.

    Attributes:
        spec: what the weights were trained for.
        config: configuration of the U-Net.
        unet: its tensors, without prefix.
        appearnet_config, appearnet: the AppearNet that shows it pictures; None for models of text to video.
        vae: the autoencoder's tensors under Stable Diffusion's keys, without prefix; None where the file has none that
            the host can use.
        name: the file's name, for messages.
    """

    spec: ModelSpec
    config: UNetConfig
    unet: dict[str, Tensor]
    appearnet_config: AppearNetConfig | None = None
    appearnet: dict[str, Tensor] | None = None
    vae: dict[str, Tensor] | None = None
    name: str = ""


class UnclearError(ValueError):
    """Neither the file nor its name says what it was trained for."""


def read_crafter(path: Path, *, use: str = "auto", resolution: str = "auto") -> Crafter:
    """Read DynamiCrafter, ToonCrafter, VideoCrafter, ModelScope or ZeroScope.

    Args:
        path: a safetensors file.
        use: one of `USES`: what DynamiCrafter was trained for, which its tensors do not tell. "auto" goes by what the
            file holds, and then by the name that it was published under.
        resolution: one of `RESOLUTIONS`, which sets DynamiCrafter's noise schedule and frame rates. "auto" goes by the
            same.

    Raises:
        ValueError: a file of another kind, keys that this model does not have, or a choice that the file cannot answer.
    """
    chosen(use, USES, "use")
    chosen(resolution, RESOLUTIONS, "resolution")
    with whole(path):
        tensors = _read(path)
        kind = _kind(_shapes(tensors))
        scales = tensors.pop(_SCALES, None)
        vae = _part(tensors, _VAE)
        resampler = _part(tensors, _RESAMPLER)
        unet = _part(tensors, LDM_PREFIX) or tensors
        fitting = _Naming(path.stem.lower(), use, resolution).spec(kind, scales)
        own_decoder = any(_OWN_DECODER.match(_VAE + key) for key in vae)
        usable = vae.keys() >= _BOTH_HALVES and not own_decoder
        return _assembled(unet, resampler, fitting, vae=vae if usable else None, name=one_line(path.name))


def _assembled(
    unet: dict[str, Tensor],
    resampler: dict[str, Tensor],
    spec: ModelSpec,
    *,
    vae: dict[str, Tensor] | None,
    name: str,
) -> Crafter:
    weights = from_unet_3d(unet) if "conv_in.weight" in unet else from_authors(unet)
    first = weights["input_blocks.0.0.weight"]
    channels = weights["out.2.weight"].shape[0]
    weights["input_blocks.0.0.weight"] = first[:, :channels].contiguous()
    layout = {
        **TEMPORAL_LAYOUTS["modelscope"],
        "temporal_stem": "conv_in_temporal.proj_in.weight" in weights,
        "fps_embedding": "fps_embed.0.weight" in weights,
        "image_context": resampler["latents"].shape[1] // FRAMES if resampler else 0,
    }
    config = config_of(weights).inflated(**layout)
    if first.shape[1] == channels:
        return Crafter(spec, config, weights, vae=vae, name=name)
    wide = first[:, channels:].contiguous()
    ends = spec.role == "tsr"
    appearnet_config = AppearNetConfig(
        config.as_2d(),
        injection="concat",
        between="zeros" if ends else "line",
        places="ends" if ends else "any",
        resampler=_resampler_config(resampler),
    )
    appearnet = {f"resampler.{key}": value for key, value in resampler.items()}
    appearnet |= {"concat.weight": wide, "concat.bias": wide.new_zeros(wide.shape[0])}
    return Crafter(spec, config, weights, appearnet_config, appearnet, vae, name)


def _kind(shapes: Shapes) -> str:
    """Return what a file is: one of `_KINDS`, or a description of another kind of file."""
    unet = {key.removeprefix(LDM_PREFIX): shape for key, shape in shapes.items()}
    over_frames = any(".temopral_conv." in key or ".temp_convs." in key for key in unet)
    first = unet.get("input_blocks.0.0.weight", unet.get("conv_in.weight", ()))
    if not over_frames or len(first) != 4:
        return kind_of(shapes)
    if any("relative_position" in key for key in unet):
        return "an early VideoCrafter with relative positions: get VideoCrafter2"
    channels = unet.get("out.2.weight", unet.get("conv_out.weight", first[1:]))[0]
    sees_image = any(key.endswith(".to_k_ip.weight") for key in unet)
    if first[1] == channels:
        if sees_image:
            return f"VideoCrafter1 for pictures: get DynamiCrafter, {BASE_512}"
        return "VideoCrafter" if any(key.startswith("fps_embedding.") for key in unet) else "ModelScope"
    if not sees_image or first[1] != 2 * channels:
        return f"a video model of {first[1]} input channels, which no Crafter has: get {BASE_512}"
    if f"{_RESAMPLER}latents" not in shapes:
        return f"DynamiCrafter's U-Net without its image projector (image_proj_model): get the whole file, {BASE_512}"
    if any(key.startswith("framestride_embed.") or key.endswith(".attn2.alpha") for key in unet):
        return "DynamiCrafter 256"
    return "ToonCrafter" if any(map(_OWN_DECODER.match, shapes)) else "DynamiCrafter"


@dataclass(frozen=True)
class _Naming:
    """What a user chose, and the name of the file, lower case."""

    name: str
    use: str
    resolution: str

    def spec(self, kind: str, scales: Tensor | None) -> ModelSpec:
        """Return the spec of a file of a kind.

        Raises:
            ValueError: the file, its name and the choices do not tell what it was trained for, or contradict it.
        """
        rescale = None if scales is None else round(float(scales[-1]), 2)  # half precision has 0.7002
        if kind == "ToonCrafter" and self.use == "base":
            raise ValueError(
                f"{kind} makes the frames between two pictures: set use to auto or interpolation."
            )
        if kind in ("VideoCrafter", "ModelScope"):
            if self.use == "interpolation":
                raise ValueError(f"{kind} makes videos from text and sees no pictures: set use to auto.")
            own = SPECS[kind]
        elif self._interpolates(kind, rescale):
            own = SPECS["ToonCrafter" if kind == "ToonCrafter" or "toon" in self.name else "interpolation"]
        else:
            own = SPECS[self._base(kind, rescale)]
        return own if rescale is None else replace(own, rescale=rescale)

    def _interpolates(self, kind: str, rescale: float | None) -> bool:
        if self.use != "auto":
            return self.use == "interpolation"
        if kind == "ToonCrafter" or "toon" in self.name or "interp" in self.name:
            return True
        if kind == "DynamiCrafter 256" or rescale == SPECS["1024"].rescale or "dynamicrafter" in self.name:
            return False
        raise UnclearError(
            "DynamiCrafter's tensors do not say what they were trained for, and neither does this name: set use to "
            "base (one picture) or to interpolation (two)."
        )

    def _base(self, kind: str, rescale: float | None) -> str:
        if kind == "DynamiCrafter 256":
            return "256"
        if self.resolution != "auto":
            return self.resolution
        known = next((side for side in ("512", "1024") if rescale == SPECS[side].rescale), None)
        known = known or next((side for side in ("512", "1024") if side in self.name), None)
        if known is None:
            raise UnclearError(
                "neither the tensors nor the name say whether this is DynamiCrafter 512 or 1024, whose noise schedules "
                "differ: set resolution."
            )
        return known


def refuse_crafter_pickle(name: str) -> None:
    """Refuse a file by its name alone where it is a pickle, with the name of the safetensors file to get."""
    lower = name.lower()
    twins = (
        ("toon", "tooncrafter_512_interp-pruned-fp16.safetensors"),
        ("interp", "dynamicrafter_512_interp_fp16_pruned.safetensors"),
        ("1024", "dynamicrafter_1024_fp16_pruned.safetensors"),
        ("", BASE_512),
    )
    refuse_pickle(name, next(twin for word, twin in twins if word in lower))


def _read(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors that are of use, after checking its kind by the header.

    Raises:
        ValueError: another kind of file, or a key that belongs to no part of these models.
    """
    header = read_header(path)
    if "microcinema.format" in header.get("__metadata__", {}):
        raise ValueError("this is a MicroCinema file already: load it with MicroCinema Checkpoint Loader.")
    shapes = {_unwrapped(key): shape for key, shape in header_shapes(header).items()}
    kind = _kind(shapes)
    if kind not in _KINDS:
        words = KINDS.get(kind, kind)
        raise ValueError(f"this is {words}; a model of the Crafter family was expected, such as {BASE_512}.")
    if any(key.startswith(LDM_PREFIX) for key in shapes):
        parts = (LDM_PREFIX, _RESAMPLER, _VAE, _SCALES)
        unknown = [key for key in shapes if not key.startswith(parts) and not _DROPPED.fullmatch(key)]
        if unknown:
            raise ValueError(
                f"{shown(unknown[0])} belongs to no part of {kind}; get {BASE_512} or its siblings."
            )
    keep = [key for key in header_shapes(header) if not _DROPPED.fullmatch(_unwrapped(key))]
    kept = set(keep)
    tensors, _ = read_tensors(path, header=header, keep=kept.__contains__)
    return {_unwrapped(key): value for key, value in tensors.items()}


def _unwrapped(key: str) -> str:
    """Return a key without what distributed training puts before it."""
    while prefix := next((prefix for prefix in _WRAPPERS if key.startswith(prefix)), None):
        key = key.removeprefix(prefix)
    return key


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take the tensors under a prefix out of a state dict."""
    keys = [key for key in tensors if key.startswith(prefix)]
    return {key.removeprefix(prefix): tensors.pop(key) for key in keys}


def _resampler_config(tensors: Mapping[str, Tensor]) -> ResamplerConfig:
    latents, inner = tensors["latents"], tensors["layers.0.0.to_q.weight"].shape[0]
    fields: dict[str, Any] = {
        "tokens": latents.shape[1],
        "width": latents.shape[2],
        "layers": len({key.split(".")[1] for key in tensors if key.startswith("layers.")}),
        "heads": inner // _HEAD_WIDTH,
        "head_width": _HEAD_WIDTH,
        "in_width": tensors["proj_in.weight"].shape[1],
        "out_width": tensors["proj_out.weight"].shape[0],
    }
    return ResamplerConfig(**fields)
