"""What the published models of the Crafter family were trained for, and their authors' sampler settings."""

from __future__ import annotations

from dataclasses import replace

from ..model_spec import ModelSpec, SamplerDefaults, WindowShape

USES = ("auto", "base", "interpolation")
"""What a file of DynamiCrafter is used for: one picture that moves, or the frames between two."""
RESOLUTIONS = ("auto", "512", "1024")
"""Versions of DynamiCrafter by the width of their videos, where a file does not say which one it is."""
FRAMES = 16
"""Frames of a clip; a clip's image tokens are shared out among as many frames."""
BASE_512 = "dynamicrafter_512_fp16_pruned.safetensors"
"""A file that messages name as an example."""

_SAMPLER = SamplerDefaults(steps=50, cfg=7.5, sampler="euler_ancestral", scheduler="simple", gamma=0.0)
"""The authors' run is DDIM with eta 1 and 50 steps that end at the noisiest one; this is the host's nearest."""
_BASE = ModelSpec(
    "base",
    fps=8.0,
    frames=FRAMES,
    prediction="v",
    zero_terminal_snr=True,
    sampling=_SAMPLER,
)
_BETWEEN = replace(_BASE, role="tsr", window=WindowShape(factor=FRAMES - 1, pairs=1), rescale=0.7)
_FROM_TEXT = replace(
    _BASE,
    role="unet",
    prediction="eps",
    zero_terminal_snr=False,
    sampling=replace(_SAMPLER, scheduler="normal"),
)

SPECS = {
    "256": replace(
        _BASE,
        origin="DynamiCrafter 256",
        prediction="eps",
        zero_terminal_snr=False,
        rates=(1.0, 3.0, 4.0),
        sampling=replace(_SAMPLER, scheduler="normal"),
    ),
    "512": replace(_BASE, origin="DynamiCrafter 512", rates=(30.0, 24.0, 15.0), rescale=0.7),
    "1024": replace(_BASE, origin="DynamiCrafter 1024", rates=(15.0, 10.0, 5.0), rescale=0.3),
    "interpolation": replace(_BETWEEN, origin="DynamiCrafter 512 interpolation", rates=(5.0,)),
    "ToonCrafter": replace(_BETWEEN, origin="ToonCrafter", rates=(10.0,)),
    "VideoCrafter": replace(
        _FROM_TEXT,
        origin="VideoCrafter",
        rates=(28.0,),
        rescale=0.7,
        sampling=replace(_FROM_TEXT.sampling, cfg=12.0),
    ),
    "ModelScope": replace(
        _FROM_TEXT, origin="ModelScope or ZeroScope", sampling=replace(_FROM_TEXT.sampling, cfg=9.0)
    ),
}
"""Specs by version. Sources: configs and scripts of Doubiiu/DynamiCrafter (configs/, gradio_app*.py), ToonCrafter, and
AILab-CVC/VideoCrafter (configs/inference_t2v_512_v2.0.yaml, scripts/run_text2video.sh). The 256's rates are strides."""

LICENCES = {
    "DynamiCrafter": "Apache-2.0 for the code",
    "ToonCrafter": "Apache-2.0 for the code",
    "VideoCrafter": "non-commercial use",
    "ModelScope or ZeroScope": "CC-BY-NC-4.0, non-commercial use",
}
"""Licences by the beginning of `ModelSpec.origin`."""
SD_2_LICENCE = "CreativeML Open RAIL++-M"
"""Licence of Stable Diffusion 2.x, which all of them start from; its limits on use hold for what is made from it."""


def licence_of(spec: ModelSpec, stated: str = "") -> str:
    """Return the licence of weights, with that of the image model that they were made from.

    Args:
        spec: what the weights were trained for.
        stated: the licence to name in place of their authors'.
    """
    authors = next(words for name, words in LICENCES.items() if spec.origin.startswith(name))
    return f"{stated or authors}; built on Stable Diffusion 2.x: {SD_2_LICENCE}"
