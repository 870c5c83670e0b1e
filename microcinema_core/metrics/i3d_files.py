"""I3D files that users have: this pack's safetensors, the state dict of pytorch-i3d, and TorchScript.

Published FVD uses one of two: the state dict `i3d_pretrained_400.pt` (VideoGPT, TATS, LVDM, cd-fvd) or the TorchScript
file `i3d_torchscript.pt` (StyleGAN-V and many since). The first holds tensors only, and torch's weights-only reader
opens it. The second is a program: it is run by torch, so it is only opened where the user names it.
"""

from __future__ import annotations

import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..messages import one_line
from .i3d import I3D
from .i3d_weights import load_i3d

PYTORCH_NORM_EPSILON = 1e-5
"""Epsilon of the batch norms in the programs that read the state dict; it is no part of the file."""
BRANCHES = {
    "b0": "branches.0.0",
    "b1a": "branches.1.0",
    "b1b": "branches.1.1",
    "b2a": "branches.2.0",
    "b2b": "branches.2.1",
    "b3b": "branches.3.1",
}
EXPECTED = (
    "expected i3d_torchscript.pt, i3d_pretrained_400.pt (the state dict of pytorch-i3d), or this pack's own "
    "i3d-k400.safetensors"
)


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive: a zip that holds code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError):  # what damaged zips raise
        return False


def last_line(error: Exception) -> str:
    """Return what an error of TorchScript says, without the traceback before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else type(error).__name__


def load_torchscript(path: Path) -> Any:
    """Load a TorchScript network in evaluation mode. It is a program: load none that you do not trust.

    Raises:
        ValueError: torch cannot load it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces the end of TorchScript
            return torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:  # of whatever part of a damaged archive comes first
        raise ValueError(
            f"{one_line(path)} cannot be loaded as TorchScript ({last_line(error)}); download it again"
        ) from error


def load_i3d_file(path: Path) -> I3D:
    """Load I3D from tensors: this pack's safetensors, or the state dict of pytorch-i3d; nothing of the file is run.

    Raises:
        ValueError: it holds something else.
    """
    if path.suffix == ".safetensors":
        return load_i3d(path, advice=EXPECTED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what does not look like torch's own pickles
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler raises anything on bytes that are no pickle
        raise ValueError(f"{one_line(path)} holds no plain tensors; {EXPECTED}") from error
    model = I3D()
    try:
        model.load_state_dict(convert_state_dict(state), strict=True)
    except Exception as error:  # a pickle may hold anything in place of tensors by name
        raise ValueError(f"{one_line(path)} does not hold I3D's tensors; {EXPECTED}") from error
    return model.eval().requires_grad_(False)


def convert_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert pytorch-i3d's state dict to I3D's, with the batch norms folded into the convolutions.

    Raises:
        KeyError: a tensor is missing, or a name is unknown.
    """
    converted: dict[str, Tensor] = {}
    for name in {key.rpartition(".conv3d.")[0] for key in state if ".conv3d." in key}:
        if name == "logits":
            converted |= {
                f"head.{part}": state[f"logits.conv3d.{part}"].float() for part in ("weight", "bias")
            }
            continue
        block, _, branch = name.partition(".")
        target = f"trunk.{block}.{BRANCHES[branch]}" if branch else f"trunk.{block}"
        norm = {
            part: state[f"{name}.bn.{part}"].double()
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        scale = norm["weight"] * (norm["running_var"] + PYTORCH_NORM_EPSILON).rsqrt()
        weight = state[f"{name}.conv3d.weight"].double() * scale.view(-1, 1, 1, 1, 1)
        converted[f"{target}.weight"] = weight.float()
        converted[f"{target}.bias"] = (norm["bias"] - norm["running_mean"] * scale).float()
    return converted
