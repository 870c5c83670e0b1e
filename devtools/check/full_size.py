"""Prepare to measure full-size training: `python3 dev.py python -m devtools.check.full_size FOLDER`.

It writes a U-Net with Stable Diffusion 2.1's shapes and the latents of 320 x 320 clips, both random, and a config. It
then prints the command that measures training steps with them. With `--motion`, the U-Net has the shapes of 1.5, and a
random motion file those of AnimateDiff version 3.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from microcinema_core.config import CONTEXT_LENGTH, UNetConfig
from microcinema_core.data.shards import write_json, write_shard

from .tiny import unet_weights

CONFIG = """stage = "base"
name = "full_size"
precision = "bf16"
init_from = {checkpoint}

[data]
folder = {clips}
batch = 1

[model]
gradient_checkpointing = true
{motion}

[optim]
lr = 2e-5
optimizer = "{optimizer}"
groups = {{ temporal = {temporal}, injection = {injection}, spatial = 0 }}
max_steps = 2
"""


SD15 = UNetConfig(context_dim=768, num_heads=8, num_head_channels=-1, use_linear_in_transformer=False)


def write(folder: Path, *, temporal: float, injection: float, optimizer: str, motion: bool) -> Path:
    """Write the checkpoint (1.7 GB), the clips and the config; return the config's path.

    Args:
        folder: the folder to write to.
        temporal, injection: learning-rate factors of the temporal layers and of AppearNet; 0 freezes them.
        optimizer: name of the optimizer, as in a training config.
        motion: start from a motion file (0.8 GB).
    """
    shape = SD15 if motion else UNetConfig()
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(2, 9, 4, 40, 40, generator=generator).half()
    text = torch.randn(2, CONTEXT_LENGTH, shape.context_dim, generator=generator).half()
    write_shard(
        folder / "clips/00000.safetensors",
        {"mean": mean, "text": text, "caption": torch.arange(2).view(2, 1)},
    )
    write_json(folder / "clips/index.json", {"frames": 9, "fps": [2.0], "shards": [2]})
    save_file({"text": text[:1]}, folder / "clips/empty.safetensors")
    checkpoint = folder / f"sd{15 if motion else 21}_unet.safetensors"
    if not checkpoint.is_file():
        weights = unet_weights(shape.as_2d())
        save_file(
            {f"model.diffusion_model.{key}": weights.pop(key).half() for key in list(weights)}, checkpoint
        )
    config = folder / "full_size.toml"
    paths = {
        "checkpoint": json.dumps(str(checkpoint.absolute())),
        "clips": json.dumps(str((folder / "clips").absolute())),
    }
    motion_from = f"motion_from = {json.dumps(str(_motion_file(folder)))}" if motion else ""
    given = {"temporal": temporal, "injection": injection, "optimizer": optimizer, "motion": motion_from}
    config.write_text(CONFIG.format(**paths, **given))
    return config


def _motion_file(folder: Path) -> Path:
    from diffusers import MotionAdapter

    path = folder.absolute() / "motion.safetensors"
    if not path.is_file():
        module: Any = MotionAdapter(use_motion_mid_block=False)
        module = module.half()
        save_file({key: value for key, value in module.state_dict().items() if not key.endswith(".pe")}, path)
    return path


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.check.full_size", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--injection",
        type=float,
        default=1.0,
        help="learning-rate factor of AppearNet; 0 freezes it, so that only temporal layers are trained",
    )
    parser.add_argument(
        "--temporal",
        type=float,
        default=1.0,
        help="learning-rate factor of the temporal layers; 0 freezes them",
    )
    parser.add_argument(
        "--motion", action="store_true", help="start from a motion file, on Stable Diffusion 1.5's shapes"
    )
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "adamw8bit"))
    given = parser.parse_args()
    config = write(
        given.folder,
        temporal=given.temporal,
        injection=given.injection,
        optimizer=given.optimizer,
        motion=given.motion,
    )
    print(f"now: python3 dev.py python -m microcinema_core.train {config} --measure 2")
    return 0


if __name__ == "__main__":
    sys.exit(main())
