"""Inputs with which a node acts on a small model, and the reasons for rows that cannot be compared."""

from __future__ import annotations

from typing import Any

from . import cases, patches
from .compare import Case

QUARTER = {"width": 32, "height": 32}

GIVEN: dict[str, dict[str, Any]] = {
    "AddNoise": {"latent_image": lambda world: world.latent(fill=1.0)},
    "CLIPTextEncodeControlnet": {"conditioning": lambda world: world.text(3)},
    "ConditioningAverage": {"conditioning_to_strength": 0.4},
    "ConditioningSetArea": QUARTER,
    "ConditioningSetAreaPercentage": {"width": 1.0, "height": 0.5},
    "ConditioningSetAreaStrength": {"strength": 0.5},
    "ConditioningSetTimestepRange": {"start": 0.0, "end": 0.6},
    "ConditioningTimestepsRange": {"start_percent": 0.0, "end_percent": 0.6},
    "CreateHookModelAsLora": {"ckpt_name": "other.safetensors"},
    "CreateHookModelAsLoraModelOnly": {"ckpt_name": "other.safetensors"},
    "FreSca": {"scale_low": 0.8, "scale_high": 1.4, "freq_cutoff": 2},
    "FreeU": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "HyperTile": {"tile_size": 32, "swap_size": 2, "max_depth": 1, "scale_depth": False},
    "LatentOperationSharpen": {"sharpen_radius": 3, "sigma": 1.0, "alpha": 0.3},
    "LoraLoader": {"lora_name": "kohya.safetensors"},
    "LoraLoaderModelOnly": {"lora_name": "kohya.safetensors"},
    "ModelMergeBlocks": {"input": 0.2, "middle": 0.5, "out": 0.7},
    "ModelMergeSimple": {"ratio": 0.4},
    "ModelSamplingContinuousEDM": {"sampling": "v_prediction"},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": True},
    "PatchModelAddDownscale": {"block_number": 2, "end_percent": 0.6},
    "SplitSigmas": {"step": 2},
    "UNetCrossAttentionMultiply": {"q": 1.2, "k": 0.9, "v": 1.1, "out": 0.8},
    "UNetSelfAttentionMultiply": {"q": 1.2, "k": 0.9, "v": 1.1, "out": 0.8},
    "UNetTemporalAttentionMultiply": {"self_structural": 0.8, "cross_structural": 1.2},
    "TomePatchModel": {"ratio": 0.5},
    "TorchCompileModel": {"backend": "eager"},
    "VideoLinearCFGGuidance": {"min_cfg": 2.0},
    "VideoTriangleCFGGuidance": {"min_cfg": 2.0},
}
"""Inputs of each node by name, in place of `make_inputs`'; a function is called with the world."""

GIVEN |= {
    name: {"lora_name": "kohya.safetensors"} for name in ("LoraLoaderBypass", "LoraLoaderBypassModelOnly")
}

INSTEAD: dict[str, Case] = {
    "ContextWindowsManual": patches.windows,
    "DifferentialDiffusion": cases.differential_diffusion,
    "EasyCache": patches.cached("EasyCache"),
    "LazyCache": patches.cached("LazyCache"),
    "ModelSave": patches.saved_and_loaded,
}
"""Nodes that need a case of their own."""

ONE_FRAME_ONLY = ("RenormCFG", "TemporalScoreRescaling")
"""Nodes that the host itself cannot run on several frames; each has another row with one frame."""

LOADER = "loads a model of the host's own: in a graph of ours a MicroCinema loader stands in its place"
SAVER = "writes a file and gives nothing to sample with; ModelSave's row writes, loads and samples"
TRAINER = "makes LoRA files by training; training of ours is a command of its own (docs/training.md)"
DATA = "files for training, no sampling"

NOT_APPLICABLE: dict[str, str] = {
    "CheckpointLoader": LOADER,
    "CheckpointLoaderSimple": LOADER,
    "CheckpointSave": SAVER,
    "DiffusersLoader": LOADER,
    "ImageOnlyCheckpointLoader": LOADER,
    "ImageOnlyCheckpointSave": SAVER,
    "LoadTrainingDataset": DATA,
    "LoraSave": SAVER,
    "MakeTrainingDataset": DATA,
    "ModelPatchLoader": "loads further weights for a model of another architecture than Stable Diffusion 1.x and 2.x",
    "ResolutionBucket": DATA,
    "SaveTrainingDataset": DATA,
    "StyleModelLoader": "loads a style model of SD 1.4 or Flux; StyleModelApply's row applies a stand-in for one",
    "TrainLoraNode": TRAINER,
    "UNETLoader": LOADER,
    "unCLIPCheckpointLoader": LOADER,
}
"""The reason why there is nothing to compare, by node."""
