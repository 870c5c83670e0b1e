"""The Crafter family at Stable Diffusion 2.1's size, beside diffusers' networks of the same or a similar layout.

diffusers' UNet3DConditionModel has ModelScope's layout, and is the baseline of each group. DynamiCrafter adds the
picture: a wider first convolution, image tokens and a frame rate. I2VGen-XL is another way to show a picture to the
same layout, for information only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from microcinema_core.config import TEMPORAL_LAYOUTS, AppearNetConfig, ResamplerConfig, UNetConfig

from .contenders import BRANCHES, CONTEXT, SD21, Contender, Shape, diffusers_network, with_appearnet
from .memory import CARDS, GIB, RESERVED, WEIGHTS, counted
from .motion import HEAD, counts, measure, row

FRAMES, SIZE = 16, 256
"""A clip of these models, and a side in pixels at which a step takes a minute or two on a core."""
PEER = "ModelScope (diffusers UNet3DConditionModel)"
MODELSCOPE = "ModelScope (MicroCinema)"
DYNAMICRAFTER = "DynamiCrafter (MicroCinema)"
I2VGEN = "I2VGen-XL (diffusers I2VGenXLUNet)"
TRAINED_AT = ((512, 320), (1024, 576))
"""Width and height in pixels of DynamiCrafter 512 and 1024."""
TOKENS = 16
"""Image tokens of a frame."""
Builders = Mapping[str, Callable[[Shape], Contender]]


@dataclass(frozen=True)
class Wide(Shape):
    """A clip that is `size` wide and `height` high, in pixels."""

    height: int = 320

    def latents(self, channels: int = 4, *, clips: int = BRANCHES) -> Tensor:
        """Return random latents `(clips f) c h w`."""
        shape = (clips * self.frames, channels, self.height // 8, self.latent)
        return torch.randn(shape, dtype=self.dtype, device=self.device)


def dynamicrafter(shape: Shape, image: UNetConfig = SD21) -> Contender:
    """Build DynamiCrafter with one picture; its image tokens are made once per run, so not here."""
    layout = {**TEMPORAL_LAYOUTS["modelscope"], "image_context": TOKENS, "fps_embedding": True}
    unet = image.as_2d().inflated(**layout)
    resampler = ResamplerConfig(tokens=TOKENS * FRAMES, out_width=image.context_dim)
    config = AppearNetConfig(unet.as_2d(), injection="concat", resampler=resampler)
    tokens = torch.randn(BRANCHES, resampler.tokens, CONTEXT, dtype=shape.dtype, device=shape.device)
    picture = shape.latents(clips=1)[:1]
    return with_appearnet(shape, unet, config, picture, lambda_=0.0, tokens=tokens, fps=24.0)


def modelscope(shape: Shape, image: UNetConfig = SD21) -> Contender:
    """Build ModelScope's layout, which sees no picture."""
    unet = image.as_2d().inflated(**TEMPORAL_LAYOUTS["modelscope"])
    return with_appearnet(shape, unet, None, shape.latents(clips=1)[:1])


def builders(image: UNetConfig = SD21) -> Builders:
    """Return a builder for each network, on an image model's configuration."""
    settings = {
        "block_out_channels": tuple(image.model_channels * mult for mult in image.channel_mult),
        "layers_per_block": image.num_res_blocks,
        "cross_attention_dim": image.context_dim,
    }
    return {
        PEER: diffusers_network("UNet3DConditionModel", **settings),
        MODELSCOPE: lambda shape: modelscope(shape, image),
        DYNAMICRAFTER: lambda shape: dynamicrafter(shape, image),
        I2VGEN: diffusers_network("I2VGenXLUNet", **settings),
    }


BUILDERS = builders()
GROUPS = ((PEER, MODELSCOPE), (PEER, DYNAMICRAFTER), (PEER, I2VGEN))
"""Pairs that are timed in the same rounds, so that only two networks are in memory at once."""


def table(
    shape: Shape,
    wanted: Callable[[str], bool],
    *,
    rounds: int,
    clock: str = "wall",
    built: Builders = BUILDERS,
) -> str:
    """Return times, memory and the cards that suffice as Markdown."""
    groups = [group for group in GROUPS if wanted(group[1])]
    timed, missing = measure(shape, lambda _: True, rounds=rounds, clock=clock, groups=groups, built=built)
    lines = [
        f"One step (prompt and empty prompt) of {shape.frames} frames of {shape.size} pixels. Times and memory are "
        "relative to diffusers' UNet3DConditionModel, which ran in the same rounds as each of the others; times are "
        f"of the {clock} clock.",
        "",
        *HEAD,
    ]
    shares = {}
    for one in timed:
        found = counts(one.name, shape, built)
        shares[one.name] = max(1.0, one.working / found.held)
        lines.append(row(one, found))
    lines += [f"| {name} | not measured: {why} | | | | | | | |" for name, why in missing.items()]
    share = shares.get(DYNAMICRAFTER, max(shares.values(), default=1.0))
    return "\n".join([*lines, "", cards(shape, share, built)])


def cards(shape: Shape, share: float, built: Builders = BUILDERS) -> str:
    """Return what fits on a card at the sizes that DynamiCrafter was trained at, as Markdown.

    Args:
        shape: the precision of the computation.
        share: factor on the counted memory, as `table` measures it.
        built: a builder for each network.
    """
    lines = [
        f"Cards for DynamiCrafter, {FRAMES} frames: weights, the image projector's included, and the counted memory "
        f"times measured over counted ({share:.2f}), in the room that {RESERVED:g} GiB less than the card leave. "
        '"In turn" is one prompt after the other, as ComfyUI does it where memory runs short.',
        "",
        "| pixels | weights | their memory | step | " + " | ".join(f"{card} GB" for card in CARDS) + " |",
        "|---|---|---|---|" + "---|" * len(CARDS),
    ]
    for width, height in TRAINED_AT:
        wide = Wide(FRAMES, width, shape.dtype, height=height)
        held, made = counted(wide, built[DYNAMICRAFTER])
        largest = max(p.numel() for net in made.networks for p in net.parameters())
        for precision, size in WEIGHTS.items():
            # In float8, the layer that is being computed also exists in the precision of the step.
            cast = largest * shape.dtype.itemsize if size != shape.dtype.itemsize else 0
            step, weights = (held * share + cast) / GIB, made.parameters * size / GIB
            cells = " | ".join(fits(card, weights, step) for card in CARDS)
            lines.append(
                f"| {width} x {height} | {precision} | {weights:.2f} GiB | {step:.2f} GiB | {cells} |"
            )
    return "\n".join(lines) + "\n"


def fits(card: float, weights: float, step: float) -> str:
    """Say whether a step fits on a card, all in GiB: with both prompts in one batch, one by one, or not."""
    room = card - RESERVED - weights
    if room >= step:
        return "fits"
    return "in turn" if room >= step / BRANCHES else "needs offloading"
