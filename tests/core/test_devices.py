"""No hard-coded device, no float64 (Apple's MPS has none), no 3D convolution (slow or missing there).

The networks run on the meta device: a tensor that they created on another device would raise when the two meet.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from devtools.check import tiny
from devtools.run.home import ROOT
from microcinema_core.config import CONTEXT_LENGTH, INJECTIONS, AppearNetConfig
from microcinema_core.networks.appearnet import AppearNet, interpolated_appearance
from microcinema_core.networks.text import TextEncoder
from microcinema_core.networks.unet import UNet3D
from microcinema_core.networks.vae import FoldedVAE

FRAMES, SIZE = 3, 8


class Watch(TorchDispatchMode):
    """Record the operations that some devices do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.doubles: list[str] = []
        self.volumes: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.dtype == torch.float64:
            self.doubles.append(str(func))
        if "convolution" in str(func) and args[1].ndim > 4:
            self.volumes.append(str(func))
        return out


def meta(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta")


def runs() -> Iterator[tuple[str, Any]]:
    """Yield the networks that the nodes run, each on the meta device."""
    t, context = meta(FRAMES), meta(FRAMES, CONTEXT_LENGTH, tiny.CONTEXT)
    latents = meta(FRAMES, 8, SIZE, SIZE)
    with torch.device("meta"):
        unet, vae, text = UNet3D(tiny.UNET), FoldedVAE(tiny.VAE), TextEncoder(tiny.TEXT)
        nets = {name: AppearNet(AppearNetConfig(tiny.UNET, injection=name, hidden=16)) for name in INJECTIONS}
    for name, net in nets.items():

        def together(net: AppearNet = net) -> Tensor:
            seen = interpolated_appearance(latents[:1], latents[1:2], FRAMES)
            features = net.features(seen, t, context, frames=FRAMES)
            injection = net.inject(features, frames=FRAMES, strength=0.5)
            return unet(latents, t, context, frames=FRAMES, injection=injection)

        yield f"U-Net with {name}", together
    yield "VAE decoder", lambda: vae.decode(latents)
    yield "VAE encoder", lambda: vae.encode(meta(FRAMES, 3, 64, 64))
    yield "text encoder", lambda: text(torch.zeros(1, CONTEXT_LENGTH, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("run", [pytest.param(run, id=name) for name, run in runs()])
def test_networks_ask_for_nothing_that_a_device_lacks(run: Any) -> None:
    with Watch() as watch, torch.no_grad():
        out = run()
    assert out.device.type == "meta"
    assert not watch.doubles
    assert not watch.volumes


def test_the_watch_sees() -> None:
    with Watch() as watch:
        torch.nn.functional.conv3d(meta(1, 1, 3, 3, 3), meta(1, 1, 3, 3, 3))
        meta(1).double()
    assert watch.volumes and watch.doubles


def test_no_device_is_named_where_nodes_run() -> None:
    """Training may name devices, as accelerate does; the modules that the nodes import may not."""
    elsewhere = {"train", "data"}
    for file in (ROOT / "microcinema_core").rglob("*.py"):
        if elsewhere & set(file.relative_to(ROOT).parts):
            continue
        assert not set(named_devices(file)), file


def named_devices(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.split(":")[0] in ("cuda", "mps", "xpu"):
                yield node.value
        elif (
            isinstance(node, ast.Attribute)
            and node.attr in ("cuda", "mps")
            and isinstance(node.ctx, ast.Load)
        ):
            is_error_class = isinstance(node.value, ast.Name) and node.value.id == "torch"
            if not is_error_class:
                yield node.attr
