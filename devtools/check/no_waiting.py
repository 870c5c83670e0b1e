"""Whether a step waits for its device: training on one card, training in general, and sampling.

On a CUDA card torch itself reports every synchronising call. Without one, training is watched for the operations that
would be such calls, and sampling runs on tensors without values, which cannot be read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from devtools.check import goldens, tiny
from microcinema_core.config import AppearNetConfig
from microcinema_core.diffusion.image_model import ImageModel
from microcinema_core.diffusion.video_model import VideoModel
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.unet import UNet3D

READING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal.", "lift_fresh")
"""Operations that copy from the device, or (`lift_fresh`, of torch.tensor) to it, by parts of their names."""


class WaitedError(RuntimeError):
    """The error for an operation that would wait for a GPU."""


class Watch(TorchDispatchMode):
    """Raises at every operation that would wait for a GPU, on the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        masks = "index" in name and any(
            isinstance(one, Tensor) and one.dtype == torch.bool for one in _leaves(args[1:])
        )
        if masks or any(word in name for word in READING):
            raise WaitedError(f"{name} waits for the device")
        return func(*args, **(kwargs or {}))


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _leaves(value)
        else:
            yield value


@contextmanager
def watched(device: torch.device) -> Iterator[None]:
    """Raise within this context where something waits for the device."""
    if device.type != "cuda":
        with Watch():
            yield
        return
    kept = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(kept)


def _why(run: Callable[[], object]) -> str:
    try:
        run()
    except (RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return ""


def training_waits(device: torch.device) -> str:
    """Return what waits in a warm step of the base stage on one card, rendering included; empty if nothing does."""
    from mini.card.loop import step

    with tempfile.TemporaryDirectory() as folder:
        trainer = card_trainer(Path(folder), device)
        for _ in range(2):
            step(trainer)

        def once() -> None:
            with watched(device):
                step(trainer)

        return _why(once)


def card_trainer(folder: Path, device: torch.device, *, stage: str = "base") -> Any:
    """Return a trainer of the tiny family as `mini.train --all --device` builds it, on random subjects."""
    from devtools.check.card_trial import build_trainer

    return build_trainer(folder, device, stage=stage)


def sampling_waits(device: torch.device) -> str:
    """Return what waits while pictures and clips are sampled; empty if nothing does."""
    where = device if device.type == "cuda" else torch.device("meta")

    def sample() -> None:
        image, video = models(where)
        given = {name: value.to(where) for name, value in goldens.inputs().items()}
        noise = torch.zeros(1, 8, 8, 8, device=where)
        for _ in range(2):  # the first call warms up

            def once() -> None:
                image.sample(given["positive"], given["negative"], noise, steps=2, guidance_scale=2.0)
                video.sample(
                    given["centre"], given["positive"], given["negative"], frames=3, steps=2,
                    guidance_scale=2.0, noise=noise[:, None].expand(-1, 3, -1, -1, -1),
                )  # fmt: skip

            once()
        if where.type == "cuda":
            with watched(where):
                once()

    return _why(sample)


def models(device: torch.device) -> tuple[ImageModel, VideoModel]:
    """Return tiny models for sampling on a device, with random weights."""
    image = _random(UNet3D(tiny.UNET.as_2d()), device)
    unet = _random(UNet3D(tiny.UNET), device)
    net = _random(AppearNet(AppearNetConfig(tiny.UNET, hidden=16)), device)
    spec = ModelSpec("base", 0.03, 2.0, 3, prediction="v", zero_terminal_snr=True)
    return ImageModel(image, ModelSpec("image")), VideoModel(unet, net, spec)


def _random(module: Any, device: torch.device) -> Any:
    assert isinstance(module, nn.Module)
    module.load_state_dict(tiny.random_weights(module))
    return module.eval().requires_grad_(False).to(device)
