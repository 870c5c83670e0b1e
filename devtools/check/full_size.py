"""Prepare to measure full-size training: `python3 dev.py python -m devtools.check.full_size FOLDER`.

It writes a U-Net with Stable Diffusion 2.1's shapes and the latents of 320 x 320 clips, both random, and a config. It
then prints the command that measures training steps with them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

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

[optim]
lr = 2e-5
optimizer = "{optimizer}"
groups = {{ temporal = 1.0, injection = {injection}, spatial = 0 }}
max_steps = 2
"""


def write(folder: Path, *, injection: float, optimizer: str) -> Path:
    """Write the checkpoint (1.7 GB), the clips and the config; return the config's path.

    Args:
        folder: the folder to write to.
        injection: learning-rate factor of AppearNet; 0 freezes it.
        optimizer: name of the optimizer, as in a training config.
    """
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(2, 9, 4, 40, 40, generator=generator).half()
    text = torch.randn(2, CONTEXT_LENGTH, 1024, generator=generator).half()
    write_shard(
        folder / "clips/00000.safetensors",
        {"mean": mean, "text": text, "caption": torch.arange(2).view(2, 1)},
    )
    write_json(folder / "clips/index.json", {"frames": 9, "fps": [2.0], "shards": [2]})
    save_file({"text": text[:1]}, folder / "clips/empty.safetensors")
    checkpoint = folder / "sd21_unet.safetensors"
    if not checkpoint.is_file():
        weights = unet_weights(UNetConfig().as_2d())
        save_file(
            {f"model.diffusion_model.{key}": weights.pop(key).half() for key in list(weights)}, checkpoint
        )
    config = folder / "full_size.toml"
    paths = {
        "checkpoint": json.dumps(str(checkpoint.absolute())),
        "clips": json.dumps(str((folder / "clips").absolute())),
    }
    config.write_text(CONFIG.format(**paths, injection=injection, optimizer=optimizer))
    return config


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
    parser.add_argument("--optimizer", default="adamw", choices=("adamw", "adamw8bit"))
    given = parser.parse_args()
    config = write(given.folder, injection=given.injection, optimizer=given.optimizer)
    print(f"now: python3 dev.py python -m microcinema_core.train {config} --measure 2")
    return 0


if __name__ == "__main__":
    sys.exit(main())
