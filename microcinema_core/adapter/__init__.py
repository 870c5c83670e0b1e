"""The ComfyUI adapter: the one part of the core that imports the host, and all that the nodes need from it.

Written for ComfyUI 0.3.75 and 0.33.0 from one source, with documented calls only.
"""

from __future__ import annotations

from .appearance import AUTO, OWN, AppearNetHandle, apply_appearance, override_prior
from .crafter import load_crafter
from .frame_conditioning import scheduled
from .inflating import INFLATE_CHOICES, inflate_checkpoint, inflate_model
from .interpolating import Interpolator, interpolate_video
from .loading import (
    MOTION_KEY,
    MOTION_LORA_KEY,
    Loaded,
    find_file,
    fingerprints,
    list_diffusers_folders,
    list_files,
    load_appearnet,
    load_checkpoint,
    load_unet,
    register_folders,
)
from .long_video import SMALLEST_SIDE, interpolate_file, new_size
from .memory import stop_if_cancelled
from .motion import add_motion, load_sparsectrl
from .picture import features_of
from .sampling import SamplerSettings, sample_video, samplers, schedulers

__all__ = [
    "AUTO",
    "INFLATE_CHOICES",
    "MOTION_KEY",
    "MOTION_LORA_KEY",
    "OWN",
    "SMALLEST_SIDE",
    "AppearNetHandle",
    "Interpolator",
    "Loaded",
    "SamplerSettings",
    "add_motion",
    "apply_appearance",
    "features_of",
    "find_file",
    "fingerprints",
    "inflate_checkpoint",
    "inflate_model",
    "interpolate_file",
    "interpolate_video",
    "list_diffusers_folders",
    "list_files",
    "load_appearnet",
    "load_checkpoint",
    "load_crafter",
    "load_sparsectrl",
    "load_unet",
    "new_size",
    "override_prior",
    "register_folders",
    "sample_video",
    "samplers",
    "scheduled",
    "schedulers",
    "stop_if_cancelled",
]
