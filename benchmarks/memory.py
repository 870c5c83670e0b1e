"""What fits on a card, by arithmetic: weights plus the counted peak memory of a sampling step.

A step of Stable Diffusion 2.1's size runs on tensors without storage, and every storage is counted when it is made and
freed. Attention counts as fused: q, k, v and the output, no matrix of weights. Workspaces of kernels and fragmentation
of the allocator are not included.
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
"""Bytes per weight."""
RESERVED = 1.0
"""GiB of a card for driver, display and host; an assumption."""
FEW, MANY = 5, 17
"""Numbers of frames at which a step is counted; memory is linear in the number of frames."""


class Live(TorchDispatchMode):
    """Counts the bytes of storages made in this context: alive `now`, and the peak, `most`."""

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
    """Stand in for fused attention: allocate the output only."""
    return torch.empty_like(q)


def most_held(step: Step) -> int:
    """Return the peak bytes that a step allocates, on any device; the second run uses the filled cache."""
    with torch.no_grad(), Live() as live:
        step()
        step()  # with the cache that the first one filled
    return live.most


def counted(shape: Shape, build: Callable[[Shape], Contender] = ours) -> tuple[int, Contender]:
    """Return the peak bytes of a run without weights, its first step included, and the contender."""
    made = build(replace(shape, device="meta"))
    with ExitStack() as stack:
        # Tensors without storage cannot be compared; all branches have the same centre frame.
        stack.enter_context(mock.patch("torch.equal", lambda a, b: True))
        stack.enter_context(mock.patch("comfy.ldm.modules.attention.optimized_attention", fused))
        stack.enter_context(mock.patch("torch.nn.functional.scaled_dot_product_attention", fused))
        return most_held(made.step), made


def fitting(card: float, weights: float, few: float, many: float) -> int:
    """Return the frames that fit, given GiB of card and weights, and of steps of FEW and MANY frames."""
    each = (many - few) / (MANY - FEW)
    return max(0, int((card - RESERVED - weights - few) / each + FEW))


def measured(shape: Shape) -> tuple[int, int]:
    """Return the peak bytes of a step without AppearNet: as counted, and as measured on this machine."""

    def bare(shape: Shape) -> Contender:
        return ours(shape, injection=None)

    made = bare(shape)
    with torch.no_grad():
        return counted(shape, bare)[0], working(made.step, shape.device)


def table(shape: Shape, *, measure: bool = True) -> str:
    """Return frames by card, size and weights as Markdown; a measured step scales the counts up."""
    share, said = 1.0, "No step was measured."
    if measure:
        expected, taken = measured(shape)
        share = max(1.0, taken / expected)
        said = (
            f"Without AppearNet, {shape.frames} frames of {shape.size} pixels count {expected / GIB:.2f} GiB and took "
            f"{taken / GIB:.2f} GiB on this machine, so the table is the count times {share:.2f}."
        )
    lines = [
        "Stable Diffusion 2.1's size with AppearNet, prompt and empty prompt in one batch; where ComfyUI splits the "
        f"two, a step takes about half. {RESERVED:g} GiB of a card is left to driver, display and ComfyUI. {said}",
        "",
        "| pixels | weights | their memory | step of 9 frames | each further frame | TSR step of one pair | "
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
            # In float8, the layer that is being computed also exists in the precision of the step.
            cast = largest * shape.dtype.itemsize if wide != shape.dtype.itemsize else 0
            few, many, pair = ((most * share + cast) / GIB for most in (of_few, of_many, of_pair))
            each = (many - few) / (MANY - FEW)
            weights = made.parameters * wide / GIB
            room = [fitting(card, weights, few, many) for card in CARDS]
            cells = " | ".join(f"{frames} frames" if frames else "needs offloading" for frames in room)
            lines.append(
                f"| {size} | {name} | {weights:.2f} GiB | {few + (9 - FEW) * each:.2f} GiB | {each:.3f} GiB | "
                f"{pair:.2f} GiB | {cells} |"
            )
    return "\n".join(lines) + "\n"
