"""What fits on a card, by arithmetic: weights, and what one step of sampling holds besides, counted without a card.

A step of Stable Diffusion 2.1's size runs on tensors without storage while every storage is counted as it comes and
goes. Attention is taken as fused: q, k, v and the answer, no table of weights. What kernels want besides, and what an
allocator cannot use between its blocks, is not in it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .contenders import TSR_FRAMES, Contender, Shape, Step, ours, ours_tsr
from .timing import working

GIB = 2**30
CARDS = (6, 8, 12, 24)
SIZES = (320, 512)
WEIGHTS = {"float16 or bfloat16": 2, "float8": 1}
"""Bytes a weight."""
RESERVED = 1.0
"""GiB of a card that the driver, a screen and the host keep; an assumption."""
FEW, MANY = 5, 17
"""Frames at which a step is counted; it grows by the same for each frame between and beyond."""


class Live(TorchDispatchMode):
    """Bytes of the storages that were made in this context and are still there, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and _storage(leaf) not in given | self.known:
                self._add(leaf.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        number, size = storage._cdata, storage.nbytes()
        self.known.add(number)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._remove, number, size)

    def _remove(self, number: int, size: int) -> None:
        self.known.discard(number)
        self.now -= size


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def fused(q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> Tensor:
    """Attention as far as memory goes."""
    return torch.empty_like(q)


def most_held(step: Step) -> int:
    """Most bytes that a step holds beyond what was there before it, whatever the device of its tensors."""
    with torch.no_grad(), Live() as live:
        step()
        step()  # with what the first one left in the run's cache
    return live.most


def counted(shape: Shape, build: Callable[[Shape], Contender] = ours) -> tuple[int, Contender]:
    """Most bytes beside the weights in a run, its first step included, and the networks."""
    made = build(replace(shape, device="meta"))
    with ExitStack() as stack:
        stack.enter_context(mock.patch("torch.equal", lambda a, b: True))  # all branches see one picture
        stack.enter_context(mock.patch("comfy.ldm.modules.attention.optimized_attention", fused))
        return most_held(made.step), made


def fitting(card: float, weights: float, few: float, many: float) -> int:
    """Frames for which there is room, of GiB of a card, of weights, and of steps of FEW and MANY frames."""
    each = (many - few) / (MANY - FEW)
    return max(0, int((card - RESERVED - weights - few) / each + FEW))


def measured(shape: Shape) -> tuple[int, int]:
    """Most bytes that a step without AppearNet holds: as counted, and on this machine, where kernels want some too."""

    def bare(shape: Shape) -> Contender:
        return ours(shape, injection=None)

    made = bare(shape)
    with torch.no_grad():
        return counted(shape, bare)[0], working(made.step, shape.device)


def table(shape: Shape, *, measure: bool = True) -> str:
    """Cards by size and weights; steps in the shape's precision. Where a step is measured, the larger figure counts."""
    share, said = 1.0, "Nothing was measured."
    if measure:
        expected, taken = measured(shape)
        share = max(1.0, taken / expected)
        said = (
            f"Without AppearNet {shape.frames} frames of {shape.size} pixels are counted at {expected / GIB:.2f} GiB, "
            f"and took {taken / GIB:.2f} GiB on this machine; the table is what is counted, times {share:.2f}."
        )
    lines = [
        f"Stable Diffusion 2.1's size with AppearNet, text and empty prompt in one batch; {RESERVED:g} GiB of a card "
        f"is left to driver, screen and host. Where the host splits the two, a step holds about half. {said}",
        "",
        "| pixels | weights | their memory | a step of 9 frames | each frame more | of one pair in TSR | "
        + " | ".join(f"{card} GB" for card in CARDS)
        + " |",
        "|---|---|---|---|---|---|" + "---|" * len(CARDS),
    ]
    for size in SIZES:
        of_few, made = counted(replace(shape, size=size, frames=FEW))
        of_many, _ = counted(replace(shape, size=size, frames=MANY))
        of_pair, _ = counted(replace(shape, size=size, frames=TSR_FRAMES), ours_tsr)
        largest = max(p.numel() for net in made.networks for p in net.parameters())
        for name, wide in WEIGHTS.items():
            cast = largest * shape.dtype.itemsize if wide != shape.dtype.itemsize else 0  # a layer as it runs
            few, many, pair = ((most * share + cast) / GIB for most in (of_few, of_many, of_pair))
            each = (many - few) / (MANY - FEW)
            weights = made.parameters * wide / GIB
            room = [fitting(card, weights, few, many) for card in CARDS]
            cells = " | ".join(f"{frames} frames" if frames else "weights in part" for frames in room)
            lines.append(
                f"| {size} | {name} | {weights:.2f} GiB | {few + (9 - FEW) * each:.2f} GiB | {each:.3f} GiB | "
                f"{pair:.2f} GiB | {cells} |"
            )
    return "\n".join(lines) + "\n"
