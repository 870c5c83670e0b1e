"""CLIP vision's features of a clip's picture, for training weights that look at pictures through it (DynamiCrafter).

The network is transformers' own, from the file that ComfyUI's Load CLIP Vision takes. Pictures are prepared as its
CLIP Vision Encode does with `crop` none; a test compares the two.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...files.checkpoint import load_strict
from ...files.safetensors_io import describe, header_shapes, read_header, read_tensors
from ...messages import one_line
from ...optional_deps import require
from .score import CLIP_MEAN, CLIP_STD
from .stable_diffusion import AUTOCAST, weights_digest

PREFIX = "vision_model."
WIDTH, HEADS = 1280, 16
"""Channels and attention heads of OpenCLIP's ViT-H, the one that the Crafter family was trained with."""
MID_GREY = 128
"""Mid grey in 8 bits: the host rounds 0.5 to it."""
EXPECTED = "CLIP vision ViT-H was expected, such as CLIP-ViT-H-fp16.safetensors"


class PictureEncoder:
    """CLIP vision ViT-H, frozen, on a device.

    Args:
        path: a safetensors file under transformers' keys.
        device: device of the network.
        dtype: precision: "fp32", "bf16" or "fp16".

    Raises:
        ValueError: there is no such file, or it holds another model.
    """

    def __init__(self, path: Path, *, device: str = "cpu", dtype: str = "fp32") -> None:
        self.device = torch.device(device)
        self.low = AUTOCAST[dtype]
        self.net = _load(path).to(self.device)
        self.side: int = self.net.config.image_size
        self.mean, self.std = (
            torch.tensor(values, device=self.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD)
        )

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> Tensor:
        """Map uint8 pictures `n 3 h w` to the last hidden state, float32 `n l 1280` on the CPU."""
        seen = pictures.to(self.device).float() / 255
        if seen.shape[-2:] != (self.side, self.side):
            seen = F.interpolate(seen, size=(self.side, self.side), mode="bicubic", antialias=True)
        seen = ((255 * seen).clamp(0, 255).round() / 255 - self.mean) / self.std
        with torch.autocast(self.device.type, self.low, enabled=self.low is not None):
            found = self.net(pixel_values=seen).last_hidden_state
        return found.float().cpu()

    def grey(self) -> Tensor:
        """Return the features of mid grey, `l 1280`, which the unguided branch sees."""
        return self.features(torch.full((1, 3, self.side, self.side), MID_GREY, dtype=torch.uint8))[0]

    def digest(self) -> str:
        """Return a hash of the weights, so that features of different models are kept apart."""
        return weights_digest({"vision": self.net})


def vision_config(path: Path) -> dict[str, Any]:
    """Return the fields of transformers' CLIPVisionConfig of a file, by its header alone.

    Raises:
        ValueError: there is no such file, or it holds another model.
    """
    if not path.is_file():
        raise ValueError(f"--clip-vision {one_line(path)} is no file; {EXPECTED}")
    header = read_header(path)
    shapes = header_shapes(header)
    patches, places, first = (
        shapes.get(f"{PREFIX}{key}", ())
        for key in (
            "embeddings.patch_embedding.weight",
            "embeddings.position_embedding.weight",
            "encoder.layers.0.mlp.fc1.weight",
        )
    )
    whole = len(patches) == 4 and len(places) == 2 and len(first) == 2
    if not whole or places[1] != WIDTH or places[0] < 2 or not patches[-1]:
        raise ValueError(f"{one_line(path.name)}: this is {describe(shapes)}; {EXPECTED}")
    layers = {key.split(".")[3] for key in shapes if key.startswith(f"{PREFIX}encoder.layers.")}
    return {
        "hidden_size": WIDTH,
        "intermediate_size": first[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": HEADS,
        "image_size": math.isqrt(places[0] - 1) * patches[-1],
        "patch_size": patches[-1],
    }


def _load(path: Path) -> Any:
    require("transformers")
    from transformers import CLIPVisionConfig, CLIPVisionModel

    net: Any = CLIPVisionModel(CLIPVisionConfig(**vision_config(path), hidden_act="gelu"))
    net = getattr(net, "vision_model", net)  # transformers 5 has no wrapper around it
    tensors, _ = read_tensors(path, keep=lambda key: key.startswith(PREFIX))
    own = {
        key.removeprefix(PREFIX): value.float()
        for key, value in tensors.items()
        if not key.endswith(".position_ids")
    }
    load_strict(net, own, f"the CLIP vision model of {one_line(path.name)}")
    return net.float().eval().requires_grad_(False)
