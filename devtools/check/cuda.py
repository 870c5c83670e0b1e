"""What a GPU makes of the networks: `python -m devtools.check.cuda [--device cuda] [--size mini] [--write]`.

Prints a table: errors against the CPU in float32, by precision; time and peak memory of a call, and the memory that was
counted without a GPU; whether a training and a sampling step wait for the CPU, and whether the networks compile whole.
It needs torch, safetensors, einops, numpy and Pillow only. `pytest -c tests/pytest.ini tests/cuda` tests the same.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import torch
from torch import Tensor, nn

from devtools.check import tiny
from devtools.release.files import write_section
from devtools.run.home import ROOT, say
from microcinema_core.config import CONTEXT_LENGTH, AppearNetConfig, TextConfig, UNetConfig, VAEConfig
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.text import TextEncoder
from microcinema_core.networks.unet import UNet3D
from microcinema_core.networks.vae import FoldedVAE

PAGE = ROOT / "docs" / "performance.md"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
TOLERANCES = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 6e-2}
"""Largest error by precision: root mean square of the difference over that of the CPU's float32 result.

Rounding to 11 or 8 bits gives about 3e-4 or 2e-3 for a layer; the networks have some thirty in a row.
"""
MIB = 2**20


@dataclass(frozen=True)
class Size:
    """Configurations and input of the networks of one size.

    Attributes:
        unet, vae, text: their configurations.
        hidden: width of the SPADE heads.
        frames, side: frames of a clip, and the latents' edge.
    """

    unet: UNetConfig
    vae: VAEConfig
    text: TextConfig
    hidden: int
    frames: int = 9
    side: int = 16


MINI = UNetConfig(
    in_channels=8, out_channels=8, model_channels=64, channel_mult=(1, 2), num_res_blocks=1,
    transformer_depth=(1, 1), context_dim=128, num_head_channels=32, appearance_attention=True,
)  # fmt: skip
SIZES = {
    "tiny": Size(tiny.UNET, tiny.VAE, tiny.TEXT, 16, frames=3, side=8),
    "mini": Size(MINI, VAEConfig(widths=(96, 128), res_blocks=2, decoder_blocks=3), TextConfig(), 48),
    "full": Size(UNetConfig(), VAEConfig(), TextConfig(), 128, side=40),
}
"""`full` is Stable Diffusion 2.1's U-Net, with random weights, at 320 pixels."""


@dataclass(frozen=True)
class Network:
    """Networks under test, on the CPU in float32, and a call of them.

    Attributes:
        name: what is called.
        modules: the networks by name.
        inputs: tensors by name.
        call: maps networks and inputs to a tensor.
    """

    name: str
    modules: Mapping[str, nn.Module]
    inputs: Mapping[str, Tensor]
    call: Callable[[Mapping[str, Any], Mapping[str, Tensor]], Tensor]

    def on(self, device: torch.device | str, dtype: torch.dtype) -> Network:
        """Return a copy on a device, weights and floating-point inputs in a precision."""
        modules = {name: copy.deepcopy(net).to(device, dtype) for name, net in self.modules.items()}
        inputs = {
            name: value.to(device, dtype if value.is_floating_point() else value.dtype)
            for name, value in self.inputs.items()
        }
        return replace(self, modules=modules, inputs=inputs)

    @torch.no_grad()
    def run(self) -> Tensor:
        """Call the networks."""
        return self.call(self.modules, self.inputs)


def _loaded(module: nn.Module, seed: int = 0) -> nn.Module:
    module.load_state_dict(tiny.random_weights(module, seed))
    return module.eval().requires_grad_(False)


def _image(nets: Mapping[str, Any], x: Mapping[str, Tensor]) -> Tensor:
    return nets["unet"](x["z"], x["t"], x["context"])


def _video(nets: Mapping[str, Any], x: Mapping[str, Tensor]) -> Tensor:
    frames, net = len(x["z"]), nets["appearnet"]
    seen = x["centre"].shape[0]
    features = net.features(x["centre"], x["t"][:seen], x["context"][:seen], frames=seen)
    injection = net.inject(features, frames=seen)
    return nets["unet"](x["z"], x["t"], x["context"], frames=frames, injection=injection)


def networks(size: Size) -> Iterator[Network]:
    """Yield the networks of a size with random weights, each with a call."""
    generator = torch.Generator().manual_seed(1)
    channels, frames, side = size.unet.in_channels, size.frames, size.side

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    x = {
        "z": noise(frames, channels, side, side),
        "t": torch.linspace(10.0, 990.0, frames),
        "context": noise(frames, CONTEXT_LENGTH, size.unet.context_dim),
    }
    yield Network("image U-Net", {"unet": _loaded(UNet3D(size.unet.as_2d()))}, x, _image)
    video = {**x, "t": x["t"][:1].expand(frames), "context": x["context"][:1].expand(frames, -1, -1)}
    nets = {
        "unet": _loaded(UNet3D(size.unet)),
        "appearnet": _loaded(AppearNet(AppearNetConfig(size.unet, hidden=size.hidden)), 1),
    }
    yield Network(
        "base model, AppearNet on one frame",
        nets,
        {**video, "centre": noise(1, channels, side, side)},
        _video,
    )
    yield Network(
        "TSR model, AppearNet on all frames",
        nets,
        {**video, "centre": noise(frames, channels, side, side)},
        _video,
    )
    if size.unet.in_channels != size.vae.latent_channels:
        return
    vae = {"vae": _loaded(FoldedVAE(size.vae))}
    yield Network("VAE decoder", vae, {"z": x["z"]}, lambda n, x: n["vae"].decode(x["z"]))
    pictures = {"x": noise(frames, 3, 8 * side, 8 * side).clamp(-1, 1)}
    yield Network("VAE encoder", vae, pictures, lambda n, x: n["vae"].encode(x["x"]))
    tokens = {"tokens": torch.randint(0, 49406, (2, CONTEXT_LENGTH), generator=generator)}
    yield Network(
        "text encoder", {"text": _loaded(TextEncoder(size.text))}, tokens, lambda n, x: n["text"](x["tokens"])
    )


def error(network: Network, device: torch.device | str, dtype: torch.dtype) -> float:
    """Return the relative error of a network on a device in a precision, against the CPU in float32."""
    exact = network.run()
    made = network.on(device, dtype).run().float().cpu()
    return float((made - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@contextmanager
def exact_products() -> Iterator[None]:
    """Compute float32 products in float32 within this context, not in TF32, for comparisons."""
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


def seconds(network: Network, device: torch.device, rounds: int = 10) -> float:
    """Return the seconds of a warm call."""
    network.run()
    _wait(device)
    started = time.perf_counter()
    for _ in range(rounds):
        network.run()
    _wait(device)
    return (time.perf_counter() - started) / rounds


def peak(network: Network) -> int:
    """Return the peak bytes of a call on a CUDA device on top of what is allocated."""
    network.run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    network.run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def counted(network: Network, dtype: torch.dtype) -> int:
    """Return the peak bytes that a call allocates by the arithmetic of `benchmarks memory`, without the device."""
    from unittest import mock

    from benchmarks.memory import fused, most_held

    bare = network.on("meta", dtype)
    with mock.patch("torch.nn.functional.scaled_dot_product_attention", fused):
        return most_held(bare.run)


def compiles(network: Network, device: torch.device | str) -> float:
    """Compile the networks' call whole and return the error against the call as it is.

    Raises:
        torch._dynamo.exc.Unsupported: something in it breaks the graph.
    """
    here = network.on(device, torch.float32)
    exact = here.run()
    backend = "inductor" if torch.device(device).type == "cuda" else "eager"

    def call(inputs: dict[str, Tensor]) -> Tensor:
        return here.call(here.modules, inputs)

    torch._dynamo.reset()
    with torch.no_grad():
        made = torch.compile(call, fullgraph=True, backend=backend)(dict(here.inputs))
    return float((made - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def row(network: Network, device: torch.device) -> str:
    """Return a network's row of the table."""
    with exact_products():
        errors = [error(network, device, dtype) for dtype in DTYPES.values()]
    here = network.on(device, torch.bfloat16)
    milliseconds = 1000 * seconds(here, device)
    memory = "not measured"
    if device.type == "cuda":
        memory = f"{peak(here) / MIB:.1f} MiB"
    arithmetic = counted(network, torch.bfloat16) / MIB
    try:
        compiled = f"yes, error {compiles(network, device):.1e}"
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as broken:
        compiled = f"**no**: {type(broken).__name__}"
    cells = [
        *(f"{value:.1e}" for value in errors),
        f"{milliseconds:.2f} ms",
        memory,
        f"{arithmetic:.1f} MiB",
        compiled,
    ]
    return f"| {network.name} | " + " | ".join(cells) + " |"


def steps_row(device: torch.device) -> str:
    """Return the row on training and sampling: whether their steps run without waiting for the CPU."""
    from devtools.check.no_waiting import sampling_waits, training_waits

    found = {"a training step": training_waits(device), "sampling": sampling_waits(device)}
    return "; ".join(f"{name} {f'**waits**: {why}' if why else 'never waits'}" for name, why in found.items())


def table(size: str, device: torch.device) -> str:
    """Return the whole check as Markdown."""
    lines = [
        "| network | error in float32 | float16 | bfloat16 | bfloat16 call | its peak memory | counted | compiles |",
        "|---|---|---|---|---|---|---|---|",
        *(row(network, device) for network in networks(SIZES[size])),
    ]
    return "\n".join([*lines, "", f"Within a step: {steps_row(device)}."])


def where(device: torch.device) -> str:
    """Describe the date, device and versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    return (
        f"{date.today().isoformat()}, {name}, torch {torch.__version__}, Python {platform.python_version()}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the table, and write it to docs/performance.md with --write."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.check.cuda", description="Check the networks on a GPU against the CPU."
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", choices=SIZES, default="mini", help="of the networks; default: %(default)s")
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.stderr.write(
            "there is no CUDA card that this torch can use; --device cpu tries the check itself\n"
        )
        return 1
    text = table(options.size, device)
    say(f"{where(device)}\n\n{text}")
    if options.write:
        command = f"python -m devtools.check.cuda --device {options.device} --size {options.size}"
        about = f"Random weights, {options.size} size. By `{command}`: {where(device)}."
        write_section(PAGE, f"check {options.size}", f"{about}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
