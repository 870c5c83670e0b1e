"""AppearNet (section 3.2): a copy of the U-Net's encoder and middle block that injects appearance.

Its features are added to the main branch and modulate its norms. Its input is the appearance latents alone: the
centre frame N times for the base model, and for TSR the line between two key frames. With equal frames,
edge-repeating temporal convolutions and no frame positions, all frames stay equal. So it is evaluated on ONE frame
per video, which is exact to rounding at 1/N of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..config import CONTEXT_LENGTH, AppearNetConfig, UNetConfig
from .injection import Injection
from .layers import AttentionFunction, LayerFactory, attention, zero_
from .resampler import Resampler
from .spatial import Modulation, TransformerOptions
from .temporal import TemporalAttention, TemporalConv
from .unet import Encoder3D, UNet3D


class SpadeHead(nn.Module):
    """The convolutions that make gamma_a and beta_a of Eq. 2: 3x3, SiLU and a zero-initialised 3x3."""

    def __init__(self, feature: int, hidden: int, channels: int, make: LayerFactory) -> None:
        super().__init__()
        self.shared = make.conv(feature, hidden, 3, padding=1)
        self.out = zero_(make.conv(hidden, channels * 2, 3, padding=1))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map a feature `n f h w` to gamma and beta, each `n c h w`."""
        gamma, beta = self.out(F.silu(self.shared(feature))).chunk(2, dim=1)
        return gamma, beta


class AppearNet(nn.Module):
    """Encoder, middle block and the weights of the injection.

    `features` depends on the centre frame and may be cached; `inject` applies the injection's weights and a strength.

    Args:
        config: the encoder's shape and the kind of injection (a row of Table 2).
        operations: namespace of layer classes, torch.nn or one of the host's.
        dtype: dtype of the weights; None is torch's default.
        device: device of the weights; None is torch's default.
        attend: attention function.
        attn_precision: dtype in which the host computes attention weights; None leaves it to the host.
    """

    def __init__(
        self,
        config: AppearNetConfig,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attend: AttentionFunction = attention,
        attn_precision: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        make = LayerFactory(operations, dtype, device, attend, attn_precision)
        self.config = config
        self.dtype = make.dtype
        self.compute_dtype = make.dtype
        self.spade_targets: list[SpadeTarget] = []
        self.given_features: dict[str, int] = {}
        if config.resampler is not None:
            self.resampler = Resampler(config.resampler, make)
            if config.resampler.grey:
                shape = config.resampler.grey, config.resampler.in_width
                self.register_buffer("grey", torch.zeros(shape, dtype=make.dtype, device=make.device))
        if config.injection == "concat":
            self.concat = zero_(make.conv(config.input_channels, config.unet.model_channels, 3, padding=1))
            return
        self.encoder = Encoder3D(config.encoder, make)
        empty = torch.zeros(CONTEXT_LENGTH, config.unet.context_dim, dtype=make.dtype, device=make.device)
        self.register_buffer("empty_prompt", empty)
        self._build_heads(make)

    def _build_heads(self, make: LayerFactory) -> None:
        widths = self.encoder.skip_channels
        self.skip_add = nn.ModuleList(zero_(make.conv(c, c, 1)) for c in widths)
        self.given_features = given_features(self.config.unet)
        self.given_norms = nn.ModuleDict(
            {block.replace(".", "_"): make.group_norm(widths[i]) for block, i in self.given_features.items()}
        )
        self.middle_add = zero_(make.conv(widths[-1], widths[-1], 1))
        if self.config.injection != "add_dec":
            self.encoder_add = nn.ModuleList(zero_(make.conv(c, c, 1)) for c in widths)
        if self.config.injection == "spade":
            self.spade_targets = spade_targets(self.config)
            self.spade = nn.ModuleDict(
                {
                    n.key: SpadeHead(n.feature_channels, self.config.hidden, n.channels, make)
                    for n in self.spade_targets
                }
            )

    @property
    def per_clip(self) -> bool:
        """Whether one evaluation serves all steps and prompts of a sampling run."""
        return not (self.config.time_conditioned or self.config.text_conditioned)

    def features(
        self, z_c: Tensor, timesteps: Tensor, context: Tensor | None, *, frames: int
    ) -> list[Tensor]:
        """Compute the features of the input blocks and of the middle block, each `(b f) c h w`.

        The injection `concat` has no encoder, and its one feature is z_c.

        Args:
            z_c: appearance latents `(b f) c h w`.
            timesteps: `(b f)`; replaced by 0 unless the config is `time_conditioned`.
            context: text `(b f) l d`; replaced by the empty prompt unless the config is `text_conditioned`.
            frames: frames per video in z_c. 1 is the one-frame shortcut: it needs equal frames, and one timestep and
                one text for all frames of a video.
        """
        if self.config.injection == "concat":
            return [z_c]
        if not self.config.time_conditioned:
            timesteps = z_c.new_zeros(z_c.shape[0])
        if not self.config.text_conditioned or context is None:
            context = self.get_buffer("empty_prompt").to(z_c).expand(z_c.shape[0], -1, -1)
        net = self.encoder
        net.require_numbered(frames)
        options: TransformerOptions = {}
        emb = net.embed(timesteps, z_c.dtype)
        h, features = z_c, []
        for block in (*net.input_blocks, net.middle_block):
            h = net.run_block(block, h, emb, context, options, frames)
            features.append(h)
        return features

    def inject(self, features: list[Tensor], *, frames: int = 1, strength: float | Tensor = 1.0) -> Injection:
        """Compute the main branch's Injection from `features` with the same number of frames per video.

        A strength s scales the additive terms and, in Eq. 2, gives (1 + s gamma) GN(h) + s beta. A tensor
        `(b f) 1 1 1` sets it per video or frame; 0 is the U-Net alone.
        """

        def scaled(x: Tensor) -> Tensor:
            return (strength * x).unflatten(0, (-1, frames))

        if self.config.injection == "concat":
            return Injection(conv_in=scaled(self.concat(features[0])))
        *encoder, middle = features
        return Injection(
            given=self._given(features, scaled),
            encoder={i: scaled(x) for i, x in self._additive("encoder_add", encoder)},
            skips={i: scaled(x) for i, x in self._additive("skip_add", encoder)},
            middle=scaled(self.middle_add(middle)),
            norms={
                (n.resblock, n.which): Modulation(*map(scaled, self.spade[n.key](features[n.feature])))
                for n in self.spade_targets
            },
        )

    def _given(self, features: list[Tensor], scaled: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return `Injection.given`; where all frames have features, the given ones are the first and the last."""
        each = {
            block: scaled(self.given_norms[block.replace(".", "_")](features[index]))
            for block, index in self.given_features.items()
        }
        return {block: x if x.shape[1] == 1 else x[:, [0, -1]] for block, x in each.items()}

    def _additive(self, name: str, features: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
        heads = getattr(self, name, ())
        return ((i, head(x)) for i, (head, x) in enumerate(zip(heads, features, strict=False)))


def interpolated_appearance(first: Tensor, last: Tensor, frames: int = 5) -> Tensor:
    """Return TSR's appearance latents `(b f) c h w`: z_c^i = (1 - i/4) z^0 + (i/4) z^4 (section 3.1).

    The key frames `first` and `last` are `b c h w`; they come back unaltered as the first and last frame.
    """
    weight = torch.arange(frames, device=first.device, dtype=first.dtype)[None, :, None, None, None] / (
        frames - 1
    )
    line = first[:, None] * (1 - weight) + last[:, None] * weight
    line[:, 0], line[:, -1] = first, last
    return rearrange(line, "b f c h w -> (b f) c h w")


def adapt_for_tsr(net: AppearNet, generator: torch.Generator | None = None) -> None:
    """Adapt a base model's AppearNet in place for TSR, where the frames of its input differ.

    With the equal frames of base training, only the sum of each temporal kernel's taps was learnt, and the temporal
    attention's q and k had no gradient. So the sum moves to the centre tap, and q and k are initialised again (Xavier
    uniform, drawn from the generator). An AppearNet of the injection "concat" is a single 2D convolution and stays.
    """
    if net.config.injection == "concat":
        return
    for module in net.encoder.modules():
        if isinstance(module, TemporalConv):
            taps = module.conv.get_parameter("weight").data
            summed = taps.sum(dim=2)
            taps.zero_()
            taps[:, :, 1] = summed
        elif isinstance(module, TemporalAttention):
            for projection in (module.attn.to_q, module.attn.to_k):
                nn.init.xavier_uniform_(projection.get_parameter("weight"), generator=generator)


class SpadeTarget(NamedTuple):
    """The address of a norm in the main branch that SPADE modulates, and the index of its feature."""

    resblock: str
    which: Literal["in", "out"]
    channels: int
    feature: int
    feature_channels: int

    @property
    def key(self) -> str:
        """Name of the norm's head in the state dict, such as `input_blocks_1_0_in`."""
        return f"{self.resblock}.{self.which}".replace(".", "_")


def spade_targets(config: AppearNetConfig) -> list[SpadeTarget]:
    """List the norms that SPADE modulates, each with the feature of its own resolution.

    Input block i is modulated by f_i, the middle block by its own feature, output block k by f_{last - k}.
    """
    with torch.device("meta"):
        net = UNet3D(config.unet.as_2d())
    last = len(net.input_blocks) - 1
    sources = [*range(last + 2), *range(last, -1, -1)]
    widths = [*net.skip_channels, net.skip_channels[-1]]
    norms = []
    for block, i in zip((*net.input_blocks, net.middle_block, *net.output_blocks), sources, strict=True):
        for name, resblock in block.resblocks():
            if config.spade_norms == "both":
                norms.append(SpadeTarget(name, "in", resblock.in_layers[0].num_channels, i, widths[i]))
            norms.append(SpadeTarget(name, "out", resblock.out_layers[0].num_channels, i, widths[i]))
    return norms


def given_features(config: UNetConfig) -> dict[str, int]:
    """Return the blocks of the U-Net with `AppearanceAttention`, each with the index of the feature that it sees.

    Input block i sees f_i, output block k f_{last - k}, as SPADE's targets.
    """
    if not config.appearance_attention:
        return {}
    per_level = config.num_res_blocks + 1
    last = per_level * len(config.channel_mult) - 1
    inputs = {f"input_blocks.{i}": i for i in range(1, per_level)}
    return inputs | {f"output_blocks.{last - i}": i for i in reversed(range(per_level))}
