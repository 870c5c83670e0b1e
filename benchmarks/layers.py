"""Time of single layers written in two ways, at the sizes of Stable Diffusion 2.1."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from microcinema_core.networks.spatial import Modulation, normalise, silu_maybe_inplace
from microcinema_core.networks.temporal import conv_over_frames

from .contenders import BRANCHES, Shape
from .timing import seconds

LEVELS = ((320, 1), (640, 2), (1280, 4), (1280, 8))
"""(channels, divisor of the latents' side) of each level."""
Way = Callable[[], Tensor]


def ways(shape: Shape, channels: int, side: int) -> Iterator[tuple[str, Way, Way]]:
    """Yield (name, first way, second way) of each layer."""
    frames = shape.frames
    with torch.device(shape.device):
        x = torch.randn(BRANCHES * frames, channels, side, side).to(shape.dtype)
        conv = nn.Conv2d(channels, channels, 3, padding=1).to(shape.dtype)
        over_frames = nn.Conv2d(channels, channels, (3, 1)).to(shape.dtype)
        norm = nn.GroupNorm(32, channels).to(shape.dtype)
        linear = nn.Linear(channels, channels).to(shape.dtype)
        gamma, beta = (torch.randn(1, frames, channels, side, side).to(shape.dtype) for _ in range(2))
    last = x.contiguous(memory_format=torch.channels_last)
    modulation = Modulation(gamma, beta)
    taps = [over_frames.weight[:, :, k, 0].T.contiguous() for k in range(3)]
    tokens = rearrange(x, "n c h w -> n (h w) c")
    edges = F.pad(rearrange(x, "(b f) c h w -> b f (h w) c", f=frames), (0, 0, 0, 0, 1, 1))

    def modulated(norm: nn.Module, *, graph: bool) -> Tensor:
        with torch.set_grad_enabled(graph):  # without a graph, it works in place
            return silu_maybe_inplace(
                normalise(norm, x, frames=frames, over_clip=False, modulation=modulation)
            )

    def products() -> Tensor:
        return sum(edges[:, k : k + frames].reshape(-1, channels) @ tap for k, tap in enumerate(taps))  # type: ignore[return-value]

    yield "2D convolution: channels first, channels last", lambda: conv(x), lambda: conv(last)
    yield "group norm: channels first, channels last", lambda: norm(x), lambda: norm(last)
    yield (
        "projection of tokens: of a view, of a copy",
        lambda: linear(tokens),
        lambda: linear(tokens.contiguous()),
    )
    yield (
        "norm, SPADE, SiLU: new tensors, in place",
        lambda: modulated(norm, graph=True),
        lambda: modulated(norm, graph=False),
    )
    yield (
        "convolution over frames: three matrix products, one (3, 1) convolution",
        products,
        lambda: conv_over_frames(over_frames, x, frames),
    )


@torch.no_grad()
def table(shape: Shape, *, rounds: int) -> str:
    """Median milliseconds of both ways at each level, as Markdown."""
    levels = [(channels, max(1, shape.latent // by)) for channels, by in LEVELS]
    rows: dict[str, list[str]] = {}
    for channels, side in levels:
        for name, *both in ways(shape, channels, side):
            for way in both:
                way()
            spent = [[seconds(way, shape.device) for _ in range(max(rounds, 3))] for way in both]
            rows.setdefault(name, []).append(
                " / ".join(f"{1e3 * statistics.median(one):.1f}" for one in spent)
            )
    lines = [
        "Milliseconds of one layer, written in the two ways that its row names.",
        "",
        "| layer | " + " | ".join(f"{channels} x {side} x {side}" for channels, side in levels) + " |",
        "|---|" + "---|" * len(levels),
        *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()),
    ]
    return "\n".join(lines) + "\n"
