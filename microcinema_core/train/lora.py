"""LoRA (Hu et al. 2021) on the linear layers of the spatial transformers: W + up @ down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..files.safetensors_io import write_tensors
from ..networks.unet import is_temporal

UP, DOWN = ".lora_up.weight", ".lora_down.weight"


class LowRankAddition(nn.Module):
    """The low-rank addition x -> up(down(x)) to a linear layer; zero at first, as `up` starts at zero."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.lora_down = nn.Linear(layer.in_features, rank, bias=False)
        self.lora_up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs `... in_features` to the addition to the layer's output, `... out_features`."""
        return self.lora_up(self.lora_down(x))


class LoRA(nn.ModuleDict):
    """The low-rank additions to a U-Net's spatial transformers.

    Forward hooks add them to the layers' outputs. Keys are the layers' names with "_" for ".".
    """

    def __init__(self, unet: nn.Module, rank: int) -> None:
        layers = {
            name.replace(".", "_"): layer
            for name, layer in unet.named_modules()
            if isinstance(layer, nn.Linear) and ".transformer_blocks." in name and not is_temporal(name)
        }
        super().__init__({name: LowRankAddition(layer, rank) for name, layer in layers.items()})
        for name, layer in layers.items():
            addition = self[name]
            layer.register_forward_hook(lambda _, inputs, output, add=addition: output + add(inputs[0]))


def merge_lora(unet: Mapping[str, Tensor], low: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the U-Net's state dict with the LoRA state dict `low` merged into it."""
    additions = {
        key.removesuffix(UP): low[key] @ low[key.removesuffix(UP) + DOWN] for key in low if key.endswith(UP)
    }
    names = {key.removesuffix(".weight").replace(".", "_"): key for key in unet if key.endswith(".weight")}
    return {**unet, **{names[name]: unet[names[name]] + addition for name, addition in additions.items()}}


def write_lora(path: Path, low: Mapping[str, Tensor]) -> None:
    """Write a LoRA file, float16, under the usual key names of a Stable Diffusion U-Net."""
    tensors = {f"lora_unet_{key}": tensor.half().contiguous() for key, tensor in low.items()}
    write_tensors(path, tensors, {"format": "pt"})
