"""What only a card can show: precision, goldens, waiting, compilation, memory; on the CPU the same at tiny size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from devtools.check import cuda, goldens, no_waiting, tiny
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.load_networks import load_video_model
from microcinema_core.train.batches import band_losses
from mini.card.loop import step


def size_for(device: torch.device) -> cuda.Size:
    return cuda.SIZES["mini" if device.type == "cuda" else "tiny"]


NAMES = [network.name for network in cuda.networks(cuda.SIZES["tiny"])]


def named(device: torch.device, name: str) -> cuda.Network:
    return next(network for network in cuda.networks(size_for(device)) if network.name == name)


@pytest.mark.parametrize("dtype", cuda.DTYPES.values(), ids=list(cuda.DTYPES))
@pytest.mark.parametrize("name", NAMES)
def test_a_network_computes_what_the_cpu_does_in_float32(
    device: torch.device, name: str, dtype: torch.dtype
) -> None:
    with cuda.exact_products():
        found = cuda.error(named(device, name), device, dtype)
    assert found < cuda.TOLERANCES[dtype]
    assert found > 0 or (dtype, device.type) == (torch.float32, "cpu")


@pytest.mark.parametrize("injection", goldens.INJECTIONS)
def test_the_device_samples_the_goldens(device: torch.device, tmp_path: Path, injection: str) -> None:
    tiny.write_family(tmp_path, injection=injection, dtype=torch.float32)
    model = load_video_model(read_checkpoint(tmp_path / "tiny_base.safetensors"))
    model.unet.to(device)
    model.appearnet.to(device)
    with cuda.exact_products():
        made = goldens.sample(model, device).cpu()
    golden = load_file(goldens.FILE)[injection]
    torch.testing.assert_close(made, golden, rtol=1e-3, atol=2e-3 * float(golden.std()))


def test_sampling_never_waits_for_the_device(device: torch.device) -> None:
    assert no_waiting.sampling_waits(device) == ""


@pytest.mark.parametrize("stage", ["image", "base"])
def test_a_training_step_never_waits_for_the_device(device: torch.device, tmp_path: Path, stage: str) -> None:
    trainer = no_waiting.card_trainer(tmp_path, device, stage=stage)
    before = [tensor.detach().clone() for tensor in trainer.master_weights.tensors]
    for _ in range(2):
        step(trainer)
    with no_waiting.watched(device):
        scalars = step(trainer)
    assert torch.isfinite(scalars["loss"]) and scalars["loss"].device.type == device.type
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.master_weights.tensors, strict=True))


def test_the_watch_sees_what_would_wait(device: torch.device) -> None:
    values = torch.rand(4, device=device)
    waiting = (
        lambda: bool(values.sum() > 0),
        lambda: values[values > 0.5],
        lambda: torch.tensor([1.0], device=device) + values,
    )
    for read in waiting:
        with pytest.raises(RuntimeError), no_waiting.watched(device):
            read()
    with no_waiting.watched(device):
        band_losses(values, torch.arange(4, device=device), 4)


COMPILED = [pytest.param(name, marks=[pytest.mark.long] * name.startswith("base")) for name in NAMES]
"""The base model takes 20 s on a CPU, as TSR does, which has all of its parts."""


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_a_network_compiles_without_breaks(device: torch.device, name: str) -> None:
    with cuda.exact_products():
        assert cuda.compiles(named(device, name), device) < 1e-3


@pytest.mark.parametrize("name", NAMES[:3])
def test_memory_is_what_was_counted(device: torch.device, name: str) -> None:
    """On a card, at full size, against the allocator's peak; on the CPU, against that of storages with values."""
    from benchmarks.memory import most_held

    size = cuda.SIZES["full" if device.type == "cuda" else "tiny"]
    network = next(network for network in cuda.networks(size) if network.name == name)
    expected = cuda.counted(network, torch.bfloat16)
    here = network.on(device, torch.bfloat16)
    taken = cuda.peak(here) if device.type == "cuda" else most_held(here.run)
    workspaces = 128 * cuda.MIB if device.type == "cuda" else 0
    assert 0.65 * expected < taken < 1.35 * expected + workspaces


def test_a_layer_that_rounds_elsewhere_is_found(device: torch.device) -> None:
    """The comparison itself: one wrong weight is above the tolerance of float32."""
    network = named(device, "image U-Net")
    wrong = network.on(device, torch.float32)
    with torch.no_grad():
        next(wrong.modules["unet"].parameters()).mul_(1.05)
    exact: Tensor = network.run()
    off = (wrong.run().cpu() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert off > cuda.TOLERANCES[torch.float32]
