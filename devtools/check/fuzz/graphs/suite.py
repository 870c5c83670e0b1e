"""The child's side of the graphs: the pack's schemas as data, and a graph of one node with faults."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from microcinema_core.files.safetensors_io import LDM_PREFIX

from ..files.damage import damaged
from ..files.readers import Demands, contents
from ..outcome import Outcome
from ..values import expanded
from . import host
from .sources import SOURCES, WRONG

NAME = "given.safetensors"
NODE = "node"
USUAL = {
    "LATENT": "one frame", "IMAGE": "three pictures", "CONDITIONING": "text", "MODEL": "base", "APPEARNET": "base",
    "VAE": "own", "CLIP": "own", "AUDIO": "sound", "MASK": "right", "VIDEO": "a file",
}  # fmt: skip
"""The value that a link brings in a good graph, by its type."""
LINKS = {
    ("MicroCinemaTSR", "model"): "tsr",
    ("MicroCinemaTSR", "appearnet"): "tsr",
    ("MicroCinemaTSR", "key_frames"): "three frames",
    ("MicroCinemaInterpolateVideo", "model"): "tsr",
    ("MicroCinemaInterpolateVideo", "appearnet"): "tsr",
    ("MicroCinemaMotionLoader", "model"): "Stable Diffusion",
    ("MicroCinemaNoisePrior", "centre_frame"): "one frame",
}
"""Exceptions to `USUAL`, by node and input."""
_SD_TEXT = {name: ["link", "text of Stable Diffusion"] for name in ("positive", "negative")}
_PIA: dict[str, Any] = {
    "model": ["link", "PIA"],
    "appearnet": ["link", "PIA"],
    "centre_frame": ["link", "4 channels"],
}
_SPARSE: dict[str, Any] = {"model": ["link", "AnimateDiff"], "appearnet": ["link", "SparseCtrl"]}
USUAL_GRAPH = "usual"
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "MicroCinemaApplyAppearNet": {
        "PIA": {**_PIA, "anchor": "first", "motion": "large"},
        "SparseCtrl": {**_SPARSE, "centre_frame": ["link", "4 channels"], "last_frame": ["link", "4 channels"],
                       "anchor": "first"},
        "of each frame": {"centre_frame": ["link", "three frames"]},
    },
    "MicroCinemaNoisePrior": {
        "after Apply AppearNet": {"model": ["link", "base with a centre frame"]},
        "Stable Diffusion": {"model": ["link", "Stable Diffusion"], "centre_frame": ["link", "4 channels"]},
    },
    "MicroCinemaSampler": {
        "PIA": {**_PIA, **_SD_TEXT},
        "SparseCtrl": {**_SPARSE, **_SD_TEXT, "centre_frame": ["link", "4 channels"]},
    },
    "MicroCinemaTSR": {
        "SparseCtrl": {**_SPARSE, **_SD_TEXT, "key_frames": ["link", "three frames of 4 channels"]},
        "twice": {"rounds": 2, "chunk": 1},
    },
    "MicroCinemaInflate": {"a MODEL": {"model": ["link", "Stable Diffusion"]}},
    "MicroCinemaMotionLoader": {
        "SparseCtrl": {"appearance_file": "sparsectrl.safetensors"},
        "a motion LoRA": {"motion_file": "v2.safetensors", "motion_lora": "motion_lora.safetensors"},
    },
    "MicroCinemaFrameCombine": {
        "all": {"images_2": ["link", "twelve pictures"], "audio": ["link", "sound"], "cross_fade": 1, "ping_pong": True,
                "colour_anchor": ["link", "one picture"], "colour_strength": 0.5, "skip_shared": True},
    },
}  # fmt: skip
"""Further good graphs of a node by their names: what differs from the usual one."""
UNUSED = {"MicroCinemaInflate": {"file": "model"}}
"""Inputs that a node does not look at where another one is given."""
WIDGETS: dict[str, Any] = {
    "steps": 1, "width": 64, "height": 64, "frames": 3, "longer_side": 64, "text": "0: a horse\n2: a house",
}  # fmt: skip
"""Values of widgets in a good graph that are not their defaults, to be quick."""
_LDM, _ALL = (LDM_PREFIX,), ("",)
FILES: dict[tuple[str, str], tuple[tuple[str, ...], Demands]] = {
    ("MicroCinemaCheckpointLoader", "file"): (
        ("tiny_base", "tiny_tsr", "tiny_image", "tiny_unet", "tiny_appearnet"),
        Demands(whole=_ALL, shaped=True, parts=("unet", "appearnet", "text", "vae")),
    ),
    ("MicroCinemaUNetLoader", "file"): (
        ("tiny_base", "tiny_tsr", "tiny_image", "tiny_unet"), Demands(whole=_LDM, shaped=True, parts=("unet",))
    ),
    ("MicroCinemaAppearNetLoader", "file"): (
        ("tiny_base", "tiny_tsr", "tiny_appearnet"), Demands(whole=("appearnet.",), shaped=True, parts=("appearnet",))
    ),
    ("MicroCinemaInflate", "file"): (
        ("sd_checkpoint", "sd_diffusers", "sd_unet", "sd_folder"), Demands(finite=_LDM, whole=_LDM, shaped=True)
    ),
    ("MicroCinemaCrafterLoader", "file"): (
        ("videocrafter", "dynamicrafter"), Demands(whole=_ALL, shaped=True)
    ),
    ("MicroCinemaMotionLoader", "motion_file"): (
        ("v3", "v3_original", "v2", "v2_original", "pia"),
        Demands(whole=("down_blocks", "up_blocks", "mid_block", "module."), shaped=True),
    ),
    ("MicroCinemaMotionLoader", "appearance_file"): (
        ("sparsectrl", "sparsectrl_webui"), Demands(whole=_ALL, shaped=True)
    ),
    ("MicroCinemaMotionLoader", "motion_lora"): (
        ("motion_lora", "motion_lora_webui"), Demands(whole=_ALL, shaped=True)
    ),
}  # fmt: skip
"""The good files of the inputs that name one, the first of them for a good graph, and what the node refuses in them."""

BESIDE = {("MicroCinemaMotionLoader", "motion_lora"): {"motion_file": "v2.safetensors"}}
"""What a graph has beside the file of an input, where the good graph does not fit it."""


@functools.cache
def describe() -> dict[str, Any]:
    """Return the nodes' inputs and outputs, the good graph of each, and the names of what links can bring."""
    torch.set_num_threads(1)
    nodes = {name: _described(name, node) for name, node in host.pack_nodes().items()}
    sources = {
        kind: {name: name in WRONG.get(kind, {"None"}) for name in values} for kind, values in SOURCES.items()
    }
    files: dict[str, dict[str, Any]] = {}
    for (node, key), (names, demands) in FILES.items():
        good = {name: contents(host.path_of(name), demands) for name in names}
        files.setdefault(node, {})[key] = {"good": good, "others": sorted(set(host.names()) - set(names))}
    return {"nodes": nodes, "sources": sources, "files": files}


def _described(name: str, node: Any) -> dict[str, Any]:
    inputs = {}
    for group, members in node.INPUT_TYPES().items():
        if group in ("required", "optional"):
            for key, (kind, *more) in members.items():
                inputs[key] = {"kind": str(kind), "required": group == "required", **_options(more)}
    return {
        "inputs": inputs,
        "unused": UNUSED.get(name, {}),
        "outputs": [str(kind) for kind in node.RETURN_TYPES],
        "good": {
            variant: {**_good_inputs(name, inputs), **changes}
            for variant, changes in {USUAL_GRAPH: {}, **VARIANTS.get(name, {})}.items()
        },
    }


def _options(more: list[Any]) -> dict[str, Any]:
    known = dict(more[0]) if more else {}
    return json.loads(
        json.dumps({key: known[key] for key in ("options", "min", "max", "default") if key in known})
    )


def _good_inputs(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of a graph that works: widgets, and for links `["link", name of a source]`."""
    good: dict[str, Any] = {}
    for key, about in inputs.items():
        kind = about["kind"]
        if kind in SOURCES:
            if about["required"] or (name, key) in LINKS:
                good[key] = ["link", LINKS.get((name, key), USUAL[kind])]
        elif (name, key) in FILES and about.get("default") is None:
            good[key] = host.path_of(FILES[name, key][0][0]).name
        elif key in WIDGETS:
            good[key] = WIDGETS[key]
        elif "default" in about:
            good[key] = about["default"]
        elif kind == "COMBO":
            good[key] = about["options"][0]
    return good


def attempt(case: dict[str, Any]) -> Outcome:
    """Run a case's graph: its node, what its links bring, and a use of each output."""
    about = describe()["nodes"][case["target"]]
    inputs = copy.deepcopy(about["good"][case["from"]])
    _remove_damaged_files()
    for fault in case["faults"]:
        if fault["do"] == "file":
            inputs |= BESIDE.get((case["target"], fault["at"]), {})
    for fault in case["faults"]:
        _put(case["target"], inputs, fault)
    prompt: host.Prompt = {NODE: {"class_type": case["target"], "inputs": {}}}
    for key, value in inputs.items():
        if isinstance(value, list) and value[:1] in (["link"], ["linked"]):
            kind = about["inputs"][key]["kind"]
            name = f"{kind}/{value[1]}" if value[0] == "link" else f"JSON/{json.dumps(value[1])}"
            prompt[f"give {key}"] = {"class_type": "FuzzGive", "inputs": {"name": name}}
            value = [f"give {key}", 0]
        prompt[NODE]["inputs"][key] = value
    for place, kind in enumerate(about["outputs"]):
        prompt[f"use {place}"] = {"class_type": "FuzzUse", "inputs": {"value": [NODE, place], "kind": kind}}
    return host.run(prompt)


def _put(node: str, inputs: dict[str, Any], fault: dict[str, Any]) -> None:
    key, value = fault["at"], expanded(fault["value"])
    match fault["do"]:
        case "absent":
            inputs.pop(key, None)
        case "widget":
            inputs[key] = value
        case "link" | "linked":
            inputs[key] = [fault["do"], value]
        case "file":
            inputs[key] = _damaged_file(FILES[node, key][0], value)
        case other:
            raise ValueError(f"no such fault: {other}")


def _remove_damaged_files() -> None:
    """Remove what the case before wrote: one of that name in an earlier folder would be found in place of a new one."""
    import folder_paths

    for path in Path(folder_paths.models_dir).glob(f"*/{Path(NAME).stem}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _damaged_file(own: tuple[str, ...], value: dict[str, Any]) -> str:
    """Write a damaged copy of a file where a node looks for its own, and return its name."""
    import folder_paths

    source = host.path_of(value["from"])
    beside = source if value["from"] in own else host.path_of(own[0]).with_suffix(source.suffix)
    target = damaged(source, value["faults"], beside.with_name(Path(NAME).stem + beside.suffix))
    folder_paths.filename_list_cache.clear()
    return target.name
