"""Count the TFLOPs of encoding: `python3 dev.py python -m devtools.check.encoding_cost`.

The result has a clip, a caption, and the CLIP score of a clip. The networks are on the meta device, with the shapes of
Stable Diffusion 2.1 and of the CLIP model for scores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from microcinema_core.config import CONTEXT_LENGTH

SIDE, FRAMES, SCORED = 320, 9, 3
"""Pixels of a frame's side, frames of a clip, frames that are scored."""


def count(call: Callable[[], Any]) -> int:
    """Return the floating-point operations of a call; a multiply-add counts as two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def main() -> None:
    """Print one JSON object: the TFLOPs of each encoder."""
    argparse.ArgumentParser(prog="python -m devtools.check.encoding_cost", description=__doc__).parse_args()
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    widths = (128, 256, 512, 512)
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    shape: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    with torch.device("meta"):
        vae: Any = AutoencoderKL(
            down_block_types=down, up_block_types=up, block_out_channels=widths, layers_per_block=2
        )
        text = CLIPTextModel(CLIPTextConfig(**shape, num_hidden_layers=23))
        eyes = CLIPVisionModel(CLIPVisionConfig(**shape, num_hidden_layers=24, patch_size=14, image_size=224))
        frames, seen = torch.empty(FRAMES, 3, SIDE, SIDE), torch.empty(SCORED, 3, 224, 224)
        tokens = torch.zeros(1, CONTEXT_LENGTH, dtype=torch.long)
        figures = {
            "vae_clip_of_9_frames": count(lambda: vae.encode(frames)),
            "text_caption": count(lambda: text(tokens)),
            "clip_score_of_3_frames": count(lambda: eyes(seen)),
        }
    print(json.dumps({name: round(counted / 1e12, 3) for name, counted in figures.items()}))  # TFLOP


if __name__ == "__main__":
    main()
