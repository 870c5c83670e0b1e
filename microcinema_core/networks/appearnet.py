"""AppearNet (section 3.2): the encoder and middle of the U-Net look at the centre frame and inject what they see.

Its input is the appearance latents only: the centre frame N times for the base model, for TSR the line between two key
frames. With equal frames, edge-repeating temporal convolutions and no frame positions, all frames stay equal, so it is
evaluated on ONE frame per video; exact to rounding, and 1/N of the cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import AppearNetConfig
from .injection import Injection
from .layers import Attention, LayerFactory, attention, zero_
from .spatial import Modulation, Options
from .temporal import TemporalAttention, TemporalConv
from .unet import Encoder3D, UNet3D

CONTEXT_LENGTH = 77


class SpadeHead(nn.Module):
    """gamma_a and beta_a of eq. 2, convolved from a feature: 3x3, SiLU, 3x3; the last one starts at zero."""

    def __init__(self, feature: int, hidden: int, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.shared = make.conv(feature, hidden, 3, padding=1)
        self.out = zero_(make.conv(hidden, channels * 2, 3, padding=1))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        gamma, beta = self.out(F.silu(self.shared(feature))).chunk(2, dim=1)
        return gamma, beta


class AppearNet(nn.Module):
    """Encoder, middle, and the injection's own weights. `features` sees the frame, `inject` the strength."""

    def __init__(
        self,
        config: AppearNetConfig,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attend: Attention = attention,
        attn_precision: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        make = LayerFactory(operations, dtype, device, attend, attn_precision)
        self.config = config
        self.dtype = make.dtype
        self.norms: list[ModulatedNorm] = []
        if config.injection == "concat":
            self.concat = zero_(make.conv(config.unet.in_channels, config.unet.model_channels, 3, padding=1))
            return
        self.encoder = Encoder3D(config.encoder, make)
        empty = torch.zeros(CONTEXT_LENGTH, config.unet.context_dim, dtype=make.dtype, device=make.device)
        self.register_buffer("empty_prompt", empty)
        self._build_heads(make)

    def _build_heads(self, make: LayerFactory) -> None:
        widths = self.encoder.skip_channels
        self.skip_add = nn.ModuleList(zero_(make.conv(c, c, 1)) for c in widths)
        self.middle_add = zero_(make.conv(widths[-1], widths[-1], 1))
        if self.config.injection != "add_dec":
            self.encoder_add = nn.ModuleList(zero_(make.conv(c, c, 1)) for c in widths)
        if self.config.injection == "spade":
            self.norms = modulated_norms(self.config)
            self.spade = nn.ModuleDict(
                {
                    n.key: SpadeHead(n.feature_channels, self.config.hidden, n.channels, make)
                    for n in self.norms
                }
            )

    @property
    def per_clip(self) -> bool:
        """Whether one evaluation serves all steps of a sampling run (and all prompts)."""
        return not (self.config.time_conditioned or self.config.text_conditioned)

    def features(
        self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, *, frames: int
    ) -> list[Tensor]:
        """One feature per input block and the middle.

        z_c: appearance latents `(b f) c h w`; frames = 1 takes the one-frame shortcut, which needs equal frames
            and one timestep and text for all frames of a video.
        timesteps `(b f)`, context `(b f) l d`: matter only where the config says so; t = 0 and the empty prompt
            stand in for them.
        """
        if self.config.injection == "concat":
            return [z_c]
        if not self.config.time_conditioned:
            timesteps = z_c.new_zeros(z_c.shape[0])
        if not self.config.text_conditioned or context is None:
            context = self.get_buffer("empty_prompt").to(z_c).expand(z_c.shape[0], -1, -1)
        net = self.encoder
        options: Options = {}
        emb = net.embed(timesteps, z_c.dtype)
        h, features = z_c, []
        for block in (*net.input_blocks, net.middle_block):
            h = net.run(block, h, emb, context, options, frames)
            features.append(h)
        return features

    def inject(self, features: list[Tensor], *, frames: int = 1, strength: float | Tensor = 1.0) -> Injection:
        """What the main branch is given, of features for as many frames a video.

        Strength s: (1 + s gamma) GN(h) + s beta, and s times the additive terms. A tensor `(b f) 1 1 1` sets it by
        video or frame.
        """

        def scaled(x: Tensor) -> Tensor:
            return (strength * x).unflatten(0, (-1, frames))

        if self.config.injection == "concat":
            return Injection(conv_in=scaled(self.concat(features[0])))
        *encoder, middle = features
        return Injection(
            encoder={i: scaled(x) for i, x in self._additive("encoder_add", encoder)},
            skips={i: scaled(x) for i, x in self._additive("skip_add", encoder)},
            middle=scaled(self.middle_add(middle)),
            norms={
                (n.resblock, n.which): Modulation(*map(scaled, self.spade[n.key](features[n.feature])))
                for n in self.norms
            },
        )

    def _additive(self, name: str, features: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
        heads = getattr(self, name, ())
        return ((i, head(x)) for i, (head, x) in enumerate(zip(heads, features, strict=False)))


def interpolated_appearance(first: Tensor, last: Tensor, frames: int = 5) -> Tensor:
    """TSR's appearance latents: z_c^i = (1 - i/4) z^0 + (i/4) z^4 for `b c h w` key frames -> `(b f) c h w`.

    The ends are the given latents themselves, unaltered.
    """
    weight = torch.arange(frames, device=first.device, dtype=first.dtype)[None, :, None, None, None] / (
        frames - 1
    )
    line = first[:, None] * (1 - weight) + last[:, None] * weight
    line[:, 0], line[:, -1] = first, last
    return rearrange(line, "b f c h w -> (b f) c h w")


def adapt_for_tsr(net: AppearNet, generator: torch.Generator | None = None) -> None:
    """Readies an AppearNet of the base model for TSR, whose frames differ, in place.

    Base training saw equal frames: only the sum of each temporal kernel's taps was ever learnt, and the temporal
    attention's q and k never got a gradient. So the sum goes to the centre tap, and q and k start fresh.
    """
    for module in net.encoder.modules():
        if isinstance(module, TemporalConv):
            taps = module.conv.get_parameter("weight").data
            summed = taps.sum(dim=2)
            taps.zero_()
            taps[:, :, 1] = summed
        elif isinstance(module, TemporalAttention):
            for projection in (module.attn.to_q, module.attn.to_k):
                nn.init.xavier_uniform_(projection.get_parameter("weight"), generator=generator)


class ModulatedNorm(NamedTuple):
    """A norm of the main branch that SPADE modulates, and the feature that does it."""

    resblock: str
    which: Literal["in", "out"]
    channels: int
    feature: int
    feature_channels: int

    @property
    def key(self) -> str:
        return f"{self.resblock}.{self.which}".replace(".", "_")


def modulated_norms(config: AppearNetConfig) -> list[ModulatedNorm]:
    """Input block i is modulated by f_i, the middle by f_middle, output block k by f_{last - k}: same resolution."""
    with torch.device("meta"):
        net = UNet3D(config.unet.as_2d())
    last = len(net.input_blocks) - 1
    sources = [*range(last + 2), *range(last, -1, -1)]
    widths = [*net.skip_channels, net.skip_channels[-1]]
    norms = []
    for block, i in zip((*net.input_blocks, net.middle_block, *net.output_blocks), sources, strict=True):
        for name, resblock in block.resblocks():
            if config.spade_norms == "both":
                norms.append(ModulatedNorm(name, "in", resblock.in_layers[0].num_channels, i, widths[i]))
            norms.append(ModulatedNorm(name, "out", resblock.out_layers[0].num_channels, i, widths[i]))
    return norms
