"""The Crafter family's runs in the host against their authors' formulas, in the variance-preserving form of training.

A clean latent z_0 is noised as z_t = a s z_0 + b eps, with a = sqrt(alpha_bar_t), b = sqrt(1 - alpha_bar_t) and the
rescale s_t. So z_0 = (z_t - b eps) / (a s) = (a z_t - b v) / s. Source: Doubiiu/DynamiCrafter, lvdm/models/ddpm3d.py
and samplers/ddim.py. Only the networks are the core's own; nothing here uses its schedule or its sampler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from microcinema_core.files.checkpoint import load_strict
from microcinema_core.files.crafter import Crafter, read_crafter
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.layers import ImageContext
from microcinema_core.networks.unet import UNet3D
from tests.host.test_crafter import (
    FRAMES,
    SCALE,
    SMALL,
    Maker,
    load,  # noqa: F401  (a fixture)
    picture,
    sampled,
    texts,
    vision,
)

STEPS = 4
TIMES = [999, 749, 499, 249]
"""Timesteps of the host's `simple` in so many steps."""
PHI = 0.7
"""The authors' share of rescaled guidance."""


@dataclass(frozen=True)
class Level:
    """What the formulas need of a timestep."""

    a: Tensor
    b: Tensor
    s: Tensor

    @property
    def sigma(self) -> Tensor:
        """The noise beside an unscaled z_0, which is the host's sigma."""
        return self.b / (self.a * self.s)


LAST = Level(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0))


def levels(rescale: float, zero_snr: bool) -> list[Level]:
    """Return those of a run; zero terminal SNR keeps the host's own remainder at its last step."""
    bar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    if zero_snr:
        root = bar.sqrt()
        bar = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        bar[-1] = 4.8973451890853435e-08
    scales = torch.cat([torch.linspace(1, rescale, 400), torch.full((600,), rescale)]).double()
    return [Level(bar[t].sqrt(), (1 - bar[t]).sqrt(), scales[t]) for t in TIMES]


Branches = Callable[[Tensor, int], tuple[Tensor, Tensor]]
Guidance = Callable[[Tensor, Tensor, Tensor, Level], Tensor]
"""From z_t, the network's two outputs and the level to z_0."""


def branches(read: Crafter, rate: float) -> Branches:
    """Return a function of z_t and t to the network's outputs for the prompt and for the negative prompt."""
    unet = UNet3D(read.config).eval()
    load_strict(unet, read.unet, "the U-Net")
    injections: list[Any] = [None, None]
    if read.appearnet_config is not None and read.appearnet is not None:
        net = AppearNet(read.appearnet_config).eval()
        load_strict(net, read.appearnet, "the AppearNet")
        concat = net.inject([picture(3)["samples"].expand(FRAMES, -1, -1, -1) * SCALE], frames=FRAMES)
        injections = [
            replace(concat, image=ImageContext(net.resampler(vision(value)))) for value in (0.7, 0.5)
        ]

    def outputs(z_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        time = torch.full((FRAMES,), float(t))
        first, second = (
            unet(z_t, time, text.expand(FRAMES, -1, -1), frames=FRAMES, injection=injection, fps=rate)
            for text, injection in zip(texts(), injections, strict=True)
        )
        return first, second

    return outputs


def run(network: Branches, guidance: Guidance, steps: list[Level]) -> Tensor:
    """Run DDIM with eta 0 from the noise of `sampled`, and return z_0."""
    first = steps[0]
    z_t = torch.randn(FRAMES, 4, 4, 4, generator=torch.Generator().manual_seed(2))
    z_t = z_t * (first.a**2 * first.s**2 + first.b**2).sqrt()  # the host starts from noise of this size
    for now, t, then in zip(steps, TIMES, [*steps[1:], LAST], strict=True):
        z_0 = guidance(z_t.float(), *network(z_t.float(), t), now)
        eps = (z_t - now.a * now.s * z_0) / now.b
        z_t = then.a * then.s * z_0 + then.b * eps
    return z_t.float()


def plain(cfg: float, *, v: bool) -> Guidance:
    """Classifier-free guidance on the network's outputs."""

    def z_0(z_t: Tensor, given: Tensor, without: Tensor, at: Level) -> Tensor:
        return from_output(z_t, without + cfg * (given - without), at, v=v)

    return z_0


def from_output(z_t: Tensor, output: Tensor, at: Level, *, v: bool) -> Tensor:
    return (at.a * z_t - at.b * output) / at.s if v else (z_t - at.b * output) / (at.a * at.s)


def rescaled(given: Tensor, guided: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Lin et al. 2023, eq. 15 and 16."""
    share = given.std(dims, keepdim=True) / guided.std(dims, keepdim=True)
    return PHI * guided * share + (1 - PHI) * guided


def distance(made: Tensor, expected: Tensor) -> float:
    return float((made - expected).norm() / expected.norm())


@torch.no_grad()
def test_video_from_text(load: Maker, tmp_path: Path) -> None:  # noqa: F811
    """VideoCrafter2: eps, scaled latents, and the frame rate that its authors tell it."""
    loaded = load("videocrafter", unet=replace(SMALL, image_context=0), clip=None)
    sampling, steps = loaded.model.get_model_object("model_sampling"), levels(0.7, zero_snr=False)
    assert float(sampling.sigma_max) == pytest.approx(float(steps[0].sigma), rel=1e-5)
    read = read_crafter(tmp_path / "videocrafter.safetensors")
    expected = run(branches(read, 28.0), plain(3.0, v=False), steps)
    made = sampled(loaded.model, steps=STEPS) * SCALE
    assert distance(made, expected) < 1e-4
    other = run(branches(read, 8.0), plain(3.0, v=False), steps)
    assert distance(made, other) > 1e-2, "the frame rate counts"


@torch.no_grad()
def test_rescale_cfg_is_near_the_authors(load: Maker, tmp_path: Path) -> None:  # noqa: F811
    """The stock node converts to v at the unscaled noise level and takes deviations per frame: near, and not equal."""
    from comfy_extras.nodes_model_advanced import RescaleCFG

    from microcinema_core import adapter

    loaded, cfg = load(), 7.5
    model = adapter.apply_appearance(loaded.model, loaded.appearnet, picture(3), features=vision(0.7))
    (patched,) = RescaleCFG().patch(model, PHI)
    made = sampled(patched, cfg=cfg, steps=STEPS) * SCALE
    network = branches(read_crafter(tmp_path / "dynamicrafter_512.safetensors"), 24.0)
    steps = levels(0.7, zero_snr=True)

    def authors(z_t: Tensor, given: Tensor, without: Tensor, at: Level) -> Tensor:
        guided = rescaled(given, without + cfg * (given - without), (0, 1, 2, 3))
        return from_output(z_t, guided, at, v=True)

    def stock(z_t: Tensor, given: Tensor, without: Tensor, at: Level) -> Tensor:
        # The v of unscaled latents at the same sigma: v = a' eps - b' z_0, with a' = 1 / sqrt(1 + sigma^2).
        a, y = 1 / (1 + at.sigma**2).sqrt(), z_t / (at.a * at.s)
        b = a * at.sigma
        pair = [a * (y - z_0) / at.sigma - b * z_0 for z_0 in
                (from_output(z_t, output, at, v=True) for output in (given, without))]  # fmt: skip
        guided = rescaled(pair[0], pair[1] + cfg * (pair[0] - pair[1]), (1, 2, 3))
        return a * (a * y) - b * guided

    assert distance(made, run(network, stock, steps)) < 1e-3
    theirs = run(network, authors, steps)
    assert 1e-2 < distance(made, theirs) < 0.25 * distance(run(network, plain(cfg, v=True), steps), theirs)
