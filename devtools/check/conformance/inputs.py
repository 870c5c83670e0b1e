"""Inputs for any node: by what the node says of them, by type and by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .world import (
    CFG,
    FRAMES,
    SEED,
    STEPS,
    NoInputError,
    UnlistedError,
    World,
    clip_vision_output,
)

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NUMBERS: dict[str, Any] = {"steps": STEPS, "cfg": CFG, "noise_seed": SEED, "seed": SEED, "batch_size": 1}
"""Widgets whose own default is too much for a small model."""
MERGED = 0.4
"""The share of the first model in every block of a merge, where the widgets' default leaves it whole."""
SKIPPED = {"vae", "clip", "clip_vision"}
"""Optional sockets that stand for another way of use."""
OTHER_MODELS = {
    "CLIP_VISION": "the picture encoder that SVD, Zero123, Pixal3D, Trellis2 and TripoSplat are conditioned by",
    "MODEL_PATCH": "further weights for a model of another architecture than Stable Diffusion 1.x and 2.x",
    "PHOTOMAKER": "PhotoMaker's picture encoder, for SDXL",
    "VOXEL": "a solid, of the host's 3D models",
}
"""Sockets of which Stable Diffusion's world has none, with what they are; any other is made, or is nobody's yet."""


def make_inputs(world: World, node: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return inputs for a node class; `given` wins. `NoInputError` names the socket that nothing fits."""
    made = _make_all(world, node.INPUT_TYPES(), given)
    return {
        name: value(world) if callable(value) and name in given else value for name, value in made.items()
    }


def _make_all(world: World, types: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return inputs as they are declared: `types` is what INPUT_TYPES gives."""
    made: dict[str, Any] = {}
    for group in ("required", "optional"):
        for name, described in (types.get(group) or {}).items():
            kind, options = _kind(described)
            if name in given:
                made[name] = given[name]
            elif kind in WIDGETS:
                share = (
                    "model2" in types.get("required", {}) and kind == "FLOAT" and options.get("max") == 1.0
                )
                made[name] = MERGED if share else _widget(world, name, kind, options)
            elif group == "required" or name not in SKIPPED:
                try:
                    made[name] = (
                        _GROUPS[kind](world, name, options) if kind in _GROUPS else socket(world, kind, name)
                    )
                except NoInputError:
                    if group == "required":
                        raise
    return made


def _growing(world: World, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Inputs of one kind, as many as are connected: one, or as many as there must be."""
    template = options["template"]
    ((_, described),) = template["input"].get("required", template["input"].get("optional", {})).items()
    count = max(1, template.get("min", 1))
    names = template.get("names") or [f"{template['prefix']}{number}" for number in range(count)]
    return _make_all(world, {"required": dict.fromkeys(names[:count], described)}, {})


def _chosen(world: World, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """A choice that brings inputs of its own: the first."""
    first = options["options"][0]
    return {name: first["key"], **_make_all(world, first["inputs"], {})}


_GROUPS: dict[str, Callable[[World, str, dict[str, Any]], dict[str, Any]]] = {
    "COMFY_AUTOGROW_V3": _growing,
    "COMFY_DYNAMICCOMBO_V3": _chosen,
}
"""Inputs that hold others: the node gets them as one dictionary."""


def _kind(described: Any) -> tuple[str, dict[str, Any]]:
    kind = described[0]
    options = dict(described[1]) if len(described) > 1 and isinstance(described[1], dict) else {}
    if isinstance(kind, list | tuple):
        return "COMBO", {**options, "options": list(kind)}
    return str(getattr(kind, "value", kind)), options


def _widget(world: World, name: str, kind: str, options: dict[str, Any]) -> Any:
    if name in NUMBERS and kind in ("INT", "FLOAT"):
        return NUMBERS[name]
    if name in ("width", "height") and kind == "INT":
        return world.pixels[name == "width"]
    if name in ("length", "video_frames") and kind == "INT":
        return FRAMES
    if kind == "COMBO":
        choices = options.get("options") or []
        if not choices and "default" not in options:
            raise UnlistedError(f"no file for {name}: give one, or say in fixtures.py why there is none")
        return options.get("default", choices[0] if choices else None)
    return options.get("default", {"INT": 1, "FLOAT": 1.0, "STRING": "a horse", "BOOLEAN": False}[kind])


def _model(world: World, name: str) -> Any:
    return world.other if name in ("model2", "model_negative") else world.model


def _conditioning(world: World, name: str) -> Any:
    seeds = {"negative": 2, "cond2": 3, "empty_conditioning": 4, "conditioning_from": 3, "conditioning_2": 3}
    later = ("_B", "_NEW", "_DEFAULT")
    seed = seeds.get(name, 3 if name.endswith(later) else 1)
    return world.text(5 if name.startswith("negative_") and seed == 3 else seed)


def _lora_hook(world: World, name: str) -> Any:
    return world.call(
        "CreateHookLora",
        lora_name="kohya.safetensors",
        strength_model=1.0,
        strength_clip=0.0,
        prev_hooks=None,
    )[0]


def _lora_file(world: World, name: str) -> Any:
    import comfy.utils

    return comfy.utils.load_torch_file(str(world.models / "loras" / "kohya.safetensors"), safe_load=True)


SOCKETS: dict[str, Callable[[World, str], Any]] = {
    "MODEL": _model,
    "CLIP": lambda world, name: world.clip,
    "VAE": lambda world, name: world.vae,
    "CONDITIONING": _conditioning,
    "LATENT": lambda world, name: world.latent(),
    "IMAGE": lambda world, name: world.image(),
    "MASK": lambda world, name: world.mask(),
    "SIGMAS": lambda world, name: world.sigmas(),
    "SAMPLER": lambda world, name: world.call("KSamplerSelect", sampler_name="euler")[0],
    "GUIDER": lambda world, name: world.guider(),
    "NOISE": lambda world, name: world.call("RandomNoise", noise_seed=SEED)[0],
    "CONTROL_NET": lambda world, name: world.call("ControlNetLoader", control_net_name="control.safetensors")[
        0
    ],
    "GLIGEN": lambda world, name: world.call("GLIGENLoader", gligen_name="gligen.safetensors")[0],
    "HOOKS": _lora_hook,
    "HOOK_KEYFRAMES": lambda world, name: world.call(
        "CreateHookKeyframe", strength_mult=0.5, start_percent=0.3, prev_hook_kf=None
    )[0],
    # To the end: with no text left at the last step, v-prediction ends in zeros, and only rounding is compared.
    "TIMESTEPS_RANGE": lambda world, name: (0.2, 1.0),
    "LATENT_OPERATION": lambda world, name: world.call(
        "LatentOperationSharpen", sharpen_radius=3, sigma=1.0, alpha=0.3
    )[0],
    "AUDIO": lambda world, name: {"waveform": torch.zeros(1, 2, 4410), "sample_rate": 44100},
    "CLIP_VISION_OUTPUT": lambda world, name: clip_vision_output(world.family),
    "FLOATS": lambda world, name: [0.2, 0.6, 1.0],
    "LORA_MODEL": _lora_file,
    "STYLE_MODEL": lambda world, name: _StyleModel(world),
}


def socket(world: World, kind: str, name: str) -> Any:
    """Return something of a socket type; `NoInputError` where Stable Diffusion's world has none."""
    kinds = kind.split(",")
    for one in kinds:
        if one in SOCKETS:
            return SOCKETS[one](world, name)
    if all(one in OTHER_MODELS for one in kinds):
        raise NoInputError(f"needs {kind}: {OTHER_MODELS[kinds[0]]}")
    raise UnlistedError(f"needs {kind}: make one, or say in inputs.py what it is")


class _StyleModel:
    """A style model's one call: picture features to tokens of the text's width."""

    def __init__(self, world: World) -> None:
        self.width = world.family.config.context_dim

    def get_cond(self, output: Any) -> torch.Tensor:
        return output.last_hidden_state[:, :, : self.width]
