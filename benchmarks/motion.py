"""Published motion weights at Stable Diffusion 1.5's size, beside diffusers' networks of the same layout.

The networks of a group share a layout and run in the same rounds. Groups follow each other, so that only one of them
is in memory.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from unittest import mock

import torch
from torch import Tensor

from devtools.check.encoding_cost import count
from devtools.run.home import say
from microcinema_core.config import (
    NUMBERED_FRAMES,
    SD15,
    TEMPORAL_LAYOUTS,
    AppearNetConfig,
    UNetConfig,
    centre_index,
)
from microcinema_core.networks.appearance_input import appearnet_input

from .contenders import BRANCHES, Contender, MissingError, Shape, from_diffusers, image_model, with_appearnet
from .memory import CARDS, FEW, GIB, MANY, RESERVED, WEIGHTS, counted, fitting
from .timing import CLOCKS, Timed, in_turns

FRAMES, SIZE = 16, 512
"""A clip of AnimateDiff, and a window of SparseCtrl."""
KEYS = (0, 5, 10, 15)
"""Frames of a SparseCtrl window that are given."""
STOCK = "Stable Diffusion 1.5 (ComfyUI)"
PIA, PIA_PEER = "PIA (MicroCinema)", "PIA (diffusers UNetMotionModel)"
SPARSECTRL = "AnimateDiff with SparseCtrl (MicroCinema)"
SPARSECTRL_PEER = "AnimateDiff with SparseCtrl (diffusers UNetMotionModel, SparseControlNetModel)"


def appearnet_of(kind: str, image: UNetConfig) -> AppearNetConfig:
    """Return the AppearNet of "pia", which widens the first convolution, or "sparsectrl", an encoder of its own."""
    if kind == "pia":
        return AppearNetConfig(image.as_2d(), injection="concat", hint="affinity")
    return AppearNetConfig(
        image.as_2d(),
        injection="add_dec",
        time_conditioned=True,
        text_conditioned=True,
        own_encoder=replace(image.as_2d().inflated(**TEMPORAL_LAYOUTS["sparsectrl"]), in_channels=5),
        hint="given",
        between="zeros",
    )


def ours(shape: Shape, kind: str, image: UNetConfig) -> Contender:
    """Build our U-Net with an AppearNet of a kind that sees the given frames of one clip; no noise prior."""
    config = appearnet_of(kind, image)
    given = [centre_index(shape.frames)] if kind == "pia" else [key for key in KEYS if key < shape.frames]
    seen = appearnet_input(shape.latents(clips=1), given, config, frames=shape.frames)
    unet = image.as_2d().inflated(**TEMPORAL_LAYOUTS["animatediff"])
    return with_appearnet(shape, unet, config, seen, lambda_=0.0)


def theirs(shape: Shape, kind: str, image: UNetConfig) -> Contender:
    """Build diffusers' U-Net of the same layout: wider at its first convolution, or with SparseCtrl's encoder."""
    settings = {
        "block_out_channels": tuple(image.model_channels * mult for mult in image.channel_mult),
        "layers_per_block": image.num_res_blocks,
        "cross_attention_dim": image.context_dim,
    }
    channels = 9 if kind == "pia" else 4
    net = from_diffusers(
        "UNetMotionModel", shape, in_channels=channels, use_motion_mid_block=False, **settings
    )
    clip, text = _clip(shape, channels), shape.context(BRANCHES * shape.frames, image.context_dim)
    time = torch.tensor(500, device=shape.device)
    if kind == "pia":
        return Contender(lambda: net(clip, time, text), (net,))
    control = from_diffusers("SparseControlNetModel", shape, **settings)
    condition, mask = _clip(shape, 4), _clip(shape, 1)

    def step() -> Tensor:
        down, middle = control(clip, time, text, condition, conditioning_mask=mask, return_dict=False)
        more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return net(clip, time, text, **more)

    return Contender(step, (net, control))


def _clip(shape: Shape, channels: int) -> Tensor:
    """Return random latents as diffusers takes them, `b c f h w`."""
    return shape.latents(channels).unflatten(0, (BRANCHES, shape.frames)).transpose(1, 2)


def builders(image: UNetConfig = SD15) -> dict[str, Callable[[Shape], Contender]]:
    """Return a builder for each network, on an image model's configuration."""
    return {
        STOCK: lambda shape: image_model(shape, image),
        PIA_PEER: lambda shape: theirs(shape, "pia", image),
        PIA: lambda shape: ours(shape, "pia", image),
        SPARSECTRL_PEER: lambda shape: theirs(shape, "sparsectrl", image),
        SPARSECTRL: lambda shape: ours(shape, "sparsectrl", image),
    }


BUILDERS = builders()
GROUPS = ((PIA_PEER, PIA, STOCK), (SPARSECTRL_PEER, SPARSECTRL))
"""Networks that are timed in the same rounds; the first of each is the one that the others are compared with."""


@dataclass(frozen=True)
class Counts:
    """What a step counts at the size of the networks, without running them.

    Attributes:
        operations: operations of a step; a multiply-add is two.
        parameters: parameters of all networks.
        held: peak bytes of a step without weights, by the count of `memory`.
    """

    operations: int
    parameters: int
    held: int


def counts(
    name: str, shape: Shape, built: Mapping[str, Callable[[Shape], Contender]] | None = None
) -> Counts:
    """Count a step on tensors without storage; `built` as for `measure`."""
    held, made = counted(shape, (BUILDERS if built is None else built)[name])
    with torch.no_grad(), mock.patch("torch.equal", lambda a, b: True):
        return Counts(count(made.step), made.parameters, held)


def measure(
    shape: Shape,
    wanted: Callable[[str], bool],
    *,
    rounds: int,
    clock: str = "wall",
    groups: Sequence[Sequence[str]] = GROUPS,
    built: Mapping[str, Callable[[Shape], Contender]] | None = None,
) -> tuple[list[Timed], dict[str, str]]:
    """Time the networks of each group in turns; return them, and why a network is missing, by name.

    Args:
        shape: the input.
        wanted: whether a network is to be timed, by its name.
        rounds: of each group; 0 times the warm-up.
        clock: one of `CLOCKS`.
        groups: names of networks that run in the same rounds; the first of each is the baseline of its group.
        built: a builder for each name; None for those of this module.
    """
    built = BUILDERS if built is None else built
    timed: list[Timed] = []
    missing: dict[str, str] = {}
    for group in groups:
        made: dict[str, Contender] = {}
        for name in filter(wanted, group):
            try:
                made[name] = built[name](shape)
            except MissingError as error:
                missing[name] = str(error)
        if made:
            times, memory = in_turns(list(made.values()), shape.device, rounds=rounds, clock=CLOCKS[clock])
            for name, own, held in zip(made, times, memory, strict=True):
                timed.append(Timed(name, own, times[0], held, memory[0]))
                say(f"{name}: {timed[-1].show()}, {statistics.median(own):.2f} s, {held / GIB:.2f} GiB")
        made.clear()
        gc.collect()
    return timed, missing


def table(shape: Shape, wanted: Callable[[str], bool], *, rounds: int, clock: str = "wall") -> str:
    """Return times, memory and the cards that suffice as Markdown."""
    timed, missing = measure(shape, wanted, rounds=rounds, clock=clock)
    lines = [
        f"One step (prompt and empty prompt) of {shape.frames} frames of {shape.size} pixels. Times and memory are "
        "relative to the first network of their group, which ran in the same rounds; times are of the "
        f"{clock} clock. The counted memory is that of all tensors but the weights, with fused attention.",
        "",
        *HEAD,
    ]
    shares = {}
    for one in timed:
        found = counts(one.name, shape)
        shares[one.name] = max(1.0, one.working / found.held)
        lines.append(row(one, found))
    lines += [f"| {name} | not measured: {why} | | | | | | | |" for name, why in missing.items()]
    return "\n".join([*lines, "", cards(shape, shares)])


HEAD = (
    "| network | parameters | TFLOP per step | seconds | relative time [range] | rounds | working memory | "
    "relative | counted memory |",
    "|---|---|---|---|---|---|---|---|---|",
)


def row(one: Timed, found: Counts) -> str:
    """Return a network's row under `HEAD`."""
    return (
        f"| {one.name} | {found.parameters / 1e6:.0f} M | {found.operations / 1e12:.2f} | "
        f"{statistics.median(one.seconds):.2f} | {one.show()} | {len(one.seconds)} | "
        f"{one.working / GIB:.2f} GiB | {one.working / max(one.floor_working, 1):.2f} | "
        f"{found.held / GIB:.2f} GiB |"
    )


def cards(shape: Shape, shares: dict[str, float]) -> str:
    """Return what fits on a card as Markdown.

    Args:
        shape: the size in pixels, and the precision of the computation.
        shares: factor on the counted memory by network, as `table` measures it. One that was not measured takes the
            largest of the others.
    """
    shares = {name: shares.get(name, max(shares.values(), default=1.0)) for name in (PIA, SPARSECTRL)}
    factors = ", ".join(f"{share:.2f} for {name}" for name, share in shares.items())
    lines = [
        f"Cards by the arithmetic of the section `memory`, {RESERVED:g} GiB of each left to driver, display and "
        f"ComfyUI: weights, AppearNet's included, and the counted memory of {shape.size} pixels times measured over "
        f'counted ({factors}). A window is {FRAMES} frames. "In turn" is one prompt after the other, as ComfyUI does '
        "it where memory runs short.",
        "",
        f"| network | weights | their memory | step of {FRAMES} frames | "
        + " | ".join(f"{card} GB" for card in CARDS)
        + " |",
        "|---|---|---|---|" + "---|" * len(CARDS),
    ]
    for name, fits in ((PIA, frames_that_fit), (SPARSECTRL, windows_that_fit)):
        few, many = (counted(replace(shape, frames=frames), BUILDERS[name]) for frames in (FEW, MANY))
        largest = max(p.numel() for net in few[1].networks for p in net.parameters())
        for precision, wide in WEIGHTS.items():
            # In float8, the layer that is being computed also exists in the precision of the step.
            cast = largest * shape.dtype.itemsize if wide != shape.dtype.itemsize else 0
            low, high = ((most * shares[name] + cast) / GIB for most in (few[0], many[0]))
            step = low + (FRAMES - FEW) * (high - low) / (MANY - FEW)
            weights = few[1].parameters * wide / GIB
            cells = (fits(fitting(card, weights, low, high)) for card in CARDS)
            lines.append(
                f"| {name} | {precision} | {weights:.2f} GiB | {step:.2f} GiB | " + " | ".join(cells) + " |"
            )
    return "\n".join(lines) + "\n"


def frames_that_fit(room: int) -> str:
    """Say how long a clip fits, of `room` frames with both prompts in one batch."""
    if room >= FRAMES:
        return f"{min(room, NUMBERED_FRAMES)} frames"
    return f"{FRAMES} frames, in turn" if 2 * room >= FRAMES else "needs offloading"


def windows_that_fit(room: int) -> str:
    """Say how many windows of SparseCtrl fit, of `room` frames with both prompts in one batch."""
    if windows := room // FRAMES:
        return f"{windows} window{'s' if windows > 1 else ''}"
    return "1 window, in turn" if 2 * room >= FRAMES else "needs offloading"
