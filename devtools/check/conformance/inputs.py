"""Inputs for any node, derived from its declaration: by type and by name."""

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
)

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NUMBERS: dict[str, Any] = {"steps": STEPS, "cfg": CFG, "noise_seed": SEED, "seed": SEED, "batch_size": 1}
"""Values of widgets whose default is too much for a small model."""
MERGED = 0.4
"""The first model's weight in every block of a merge; with the widgets' default of 1 nothing is merged."""
SKIPPED = {"vae", "clip", "clip_vision"}
"""Optional inputs that switch a node to another mode."""
OTHER_MODELS = {
    "CLIP_VISION": "the picture encoder that SVD, Zero123, Pixal3D, Trellis2 and TripoSplat are conditioned by",
    "MODEL_PATCH": "further weights for a model of another architecture than Stable Diffusion 1.x and 2.x",
    "PHOTOMAKER": "PhotoMaker's picture encoder, for SDXL",
    "VOXEL": "a solid, of the host's 3D models",
}
"""Socket types that do not exist for Stable Diffusion, with what they are; all others must be in `SOCKETS`."""


def make_inputs(world: World, node: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return inputs for a node class; those in `given` take precedence.

    Raises:
        NoInputError: a required input has a type that does not exist for Stable Diffusion.
        UnlistedError: a required input has an unknown type, or there is no file for it.
    """
    made = _make_all(world, node.INPUT_TYPES(), given)
    return {
        name: value(world) if callable(value) and name in given else value for name, value in made.items()
    }


def _make_all(world: World, types: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return inputs for a declaration as INPUT_TYPES returns it."""
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
    """Return the smallest number of inputs, at least one, for an input that grows with its connections."""
    template = options["template"]
    ((_, described),) = template["input"].get("required", template["input"].get("optional", {})).items()
    count = max(1, template.get("min", 1))
    names = template.get("names") or [f"{template['prefix']}{number}" for number in range(count)]
    return _make_all(world, {"required": dict.fromkeys(names[:count], described)}, {})


def _chosen(world: World, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the first option of a combo whose options have their own inputs, with those inputs."""
    first = options["options"][0]
    return {name: first["key"], **_make_all(world, first["inputs"], {})}


_GROUPS: dict[str, Callable[[World, str, dict[str, Any]], dict[str, Any]]] = {
    "COMFY_AUTOGROW_V3": _growing,
    "COMFY_DYNAMICCOMBO_V3": _chosen,
}
"""Inputs that contain others; the node gets them as one dictionary."""


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


def lora_hook(world: World) -> Any:
    """Return HOOKS with a LoRA."""
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


def _clip_vision_output(world: World, name: str) -> Any:
    """Return a random output of a CLIP vision model."""
    import comfy.clip_vision

    width, generator = world.family.config.context_dim, torch.Generator().manual_seed(10)
    output = comfy.clip_vision.Output()
    output.image_embeds = torch.randn(1, width, generator=generator)
    output.last_hidden_state = torch.randn(1, 9, width, generator=generator)
    output.penultimate_hidden_states = torch.randn(1, 9, width, generator=generator)
    output.mm_projected = None
    return output


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
    "HOOKS": lambda world, name: lora_hook(world),
    "HOOK_KEYFRAMES": lambda world, name: world.call(
        "CreateHookKeyframe", strength_mult=0.5, start_percent=0.3, prev_hook_kf=None
    )[0],
    # It has to reach 1: without text at the last step v-prediction ends in zeros, and only rounding is compared.
    "TIMESTEPS_RANGE": lambda world, name: (0.2, 1.0),
    "LATENT_OPERATION": lambda world, name: world.call(
        "LatentOperationSharpen", sharpen_radius=3, sigma=1.0, alpha=0.3
    )[0],
    "AUDIO": lambda world, name: {"waveform": torch.zeros(1, 2, 4410), "sample_rate": 44100},
    "CLIP_VISION_OUTPUT": _clip_vision_output,
    "FLOATS": lambda world, name: [0.2, 0.6, 1.0],
    "LORA_MODEL": _lora_file,
    "STYLE_MODEL": lambda world, name: _StyleModel(world),
}


def socket(world: World, kind: str, name: str) -> Any:
    """Return a value for an input.

    Args:
        world: the family's models.
        kind: the socket type, or several with commas between.
        name: the input's name.

    Raises:
        NoInputError: the type does not exist for Stable Diffusion.
        UnlistedError: the type is unknown.
    """
    kinds = kind.split(",")
    for one in kinds:
        if one in SOCKETS:
            return SOCKETS[one](world, name)
    if all(one in OTHER_MODELS for one in kinds):
        raise NoInputError(f"needs {kind}: {OTHER_MODELS[kinds[0]]}")
    raise UnlistedError(f"needs {kind}: make one, or say in inputs.py what it is")


class _StyleModel:
    """A style model that cuts picture features to tokens of the text's width."""

    def __init__(self, world: World) -> None:
        self.width = world.family.config.context_dim

    def get_cond(self, output: Any) -> torch.Tensor:
        return output.last_hidden_state[:, :, : self.width]
