"""The one part of the core that knows ComfyUI. Everything that the nodes need from it is named here.

Written for ComfyUI 0.3.75 and 0.33.0 from one source, with documented calls only.
"""

from __future__ import annotations

from .appearance import AppearNetHandle, apply_appearance, override_prior
from .files import find_file, list_diffusers_folders, list_files, register_folders
from .inflating import TEMPORAL_LAYOUTS, inflate_checkpoint
from .interpolating import interpolate_video
from .loading import Loaded, load_appearnet, load_checkpoint, load_unet
from .sampling import SamplerSettings, sample_video, samplers, schedulers

__all__ = [
    "TEMPORAL_LAYOUTS",
    "AppearNetHandle",
    "Loaded",
    "SamplerSettings",
    "apply_appearance",
    "find_file",
    "inflate_checkpoint",
    "interpolate_video",
    "list_diffusers_folders",
    "list_files",
    "load_appearnet",
    "load_checkpoint",
    "load_unet",
    "override_prior",
    "register_folders",
    "sample_video",
    "samplers",
    "schedulers",
]
