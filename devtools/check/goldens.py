"""Small numeric goldens of a whole sampling run, computed by the core in plain PyTorch without a host.

`python3 dev.py python -m devtools.check.goldens` rewrites tests/goldens.safetensors. Do that only if the method itself
changes. tests/core/test_goldens.py compares the core with them, tests/host/test_goldens_host.py the host.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from devtools.check import tiny
from devtools.run.home import ROOT, say
from microcinema_core.diffusion.video_model import VideoModel
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_video_model
from microcinema_core.files.safetensors_io import write_tensors

FILE = ROOT / "tests" / "goldens.safetensors"
FRAMES, STEPS, CFG, GAMMA, SEED = 3, 4, 4.0, 0.05, 7
INJECTIONS = ("spade", "add_dec")


def inputs() -> dict[str, Tensor]:
    """Return the inputs of both sides: the centre latent `1 c h w` and both texts `1 n c`."""
    generator = torch.Generator().manual_seed(SEED)
    return {
        "centre": torch.randn(1, 8, 8, 8, generator=generator),
        "positive": torch.randn(1, 16, tiny.CONTEXT, generator=generator),
        "negative": torch.randn(1, 16, tiny.CONTEXT, generator=generator),
    }


def make(folder: Path, injection: str) -> Tensor:
    """Write the tiny weights to a folder and sample key frames `f c h w` with its base file."""
    tiny.write_family(folder, injection=injection, dtype=torch.float32)
    return sample(load_video_model(read_checkpoint(folder / "tiny_base.safetensors")))


def sample(model: VideoModel, device: torch.device | str = "cpu") -> Tensor:
    """Sample key frames `f c h w` with a model on a device, from the goldens' inputs and settings."""
    given = {name: value.to(device) for name, value in inputs().items()}
    clip = model.sample(
        given["centre"],
        given["positive"],
        given["negative"],
        frames=FRAMES,
        steps=STEPS,
        guidance_scale=CFG,
        seed=SEED,
        gamma=GAMMA,
    )
    return rearrange(clip, "1 f c h w -> f c h w")


def main() -> int:
    """Write the goldens of every injection mode."""
    import tempfile

    argparse.ArgumentParser(prog="python -m devtools.check.goldens", description=__doc__).parse_args()
    torch.set_num_threads(1)
    made = {}
    for injection in INJECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            made[injection] = make(Path(folder), injection).contiguous()
    write_tensors(FILE, made, {"made by": "python -m devtools.check.goldens"})
    say(f"{FILE.relative_to(ROOT)}: {', '.join(made)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
