"""The shapes of the networks, as frozen dataclasses that travel in the metadata of every file.

Sizes follow Stable Diffusion's own names, so that a checkpoint's key shapes determine a `UNetConfig` and the reverse.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

InjectedNorm = Literal["frame", "clip"]
TemporalConvLayout = Literal["per_conv", "per_resblock", "none"]
TemporalAttentionLayout = Literal["self", "transformer", "none"]
InjectionKind = Literal["spade", "concat", "add_dec", "add_encdec"]
INJECTIONS: tuple[InjectionKind, ...] = ("spade", "add_encdec", "add_dec", "concat")

T = TypeVar("T")


def from_known_fields(cls: type[T], values: dict[str, Any]) -> T:
    """Builds a dataclass from a JSON object; lists become tuples, an unknown field is a ValueError that names it."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}. "
            "The file may come from a newer version of MicroCinema: update the pack."
        )
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True)
class UNetConfig:
    """A Stable Diffusion U-Net, by default 2.1's, and how it is inflated over time (section 3.1 of the paper).

    temporal_conv: `per_conv` puts a 1D convolution over frames after each spatial convolution (the paper);
        `per_resblock` a stack of four after each ResBlock (the layout of published motion weights);
        `none` is the 2D U-Net.
    temporal_attention: `self` adds one attention over frames after each spatial transformer (the paper);
        `transformer` two attentions and a feed-forward (the layout of published motion weights).
    injected_norm: over what the statistics of the norms that SPADE modulates are taken: one video (`clip`, the paper's
        3D group normalisation) or one frame (`frame`, which leaves the image model untouched at birth).
    """

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    transformer_depth: tuple[int, ...] = (1, 1, 1, 0)
    context_dim: int = 1024
    num_heads: int = -1
    num_head_channels: int = 64
    use_linear_in_transformer: bool = True
    injected_norm: InjectedNorm = "frame"
    temporal_conv: TemporalConvLayout = "per_conv"
    temporal_attention: TemporalAttentionLayout = "self"
    position_encoding: Literal["sinusoidal", "none"] = "sinusoidal"

    def __post_init__(self) -> None:
        if len(self.channel_mult) != len(self.transformer_depth):
            raise ValueError(
                f"channel_mult has {len(self.channel_mult)} levels and transformer_depth "
                f"{len(self.transformer_depth)}; "
                "give one transformer depth for each level."
            )
        if (self.num_heads == -1) == (self.num_head_channels == -1):
            raise ValueError(
                f"num_heads is {self.num_heads} and num_head_channels {self.num_head_channels}; "
                "set one and leave the other -1."
            )

    @property
    def downscale(self) -> int:
        """Height and width of the latents are best multiples of this."""
        return 2 ** (len(self.channel_mult) - 1)

    def heads(self, channels: int) -> int:
        return self.num_heads if self.num_heads != -1 else channels // self.num_head_channels

    def as_2d(self) -> UNetConfig:
        """The image model inside: the same spatial layers, no temporal ones."""
        return replace(self, temporal_conv="none", temporal_attention="none")

    def inflated(self, **changes: Any) -> UNetConfig:
        """The video model of an image model: the paper's temporal layout, unless `changes` say otherwise."""
        return replace(self, **{"temporal_conv": "per_conv", "temporal_attention": "self", **changes})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> UNetConfig:
        return from_known_fields(cls, values)


@dataclass(frozen=True)
class AppearNetConfig:
    """AppearNet (section 3.2): the encoder and middle of `unet`, and how their features reach the main branch.

    injection: the four rows of the paper's Table 2.
    hidden: width of the SPADE heads.
    spade_norms: which norms of a ResBlock are modulated: `both`, or only the second (`out`).
    time_conditioned, text_conditioned: false computes features once per clip, at t = 0 and the empty prompt.
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    injection: InjectionKind = "spade"
    hidden: int = 128
    spade_norms: Literal["both", "out"] = "both"
    time_conditioned: bool = False
    text_conditioned: bool = False

    def __post_init__(self) -> None:
        if self.injection not in INJECTIONS:
            raise ValueError(f"injection is {self.injection!r}; expected one of {', '.join(INJECTIONS)}.")

    @property
    def encoder(self) -> UNetConfig:
        """AppearNet's encoder knows no frame positions, so that equal frames stay equal (one-frame shortcut)."""
        return replace(self.unet, position_encoding="none", injected_norm="frame")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AppearNetConfig:
        return from_known_fields(cls, {**values, "unet": UNetConfig.from_dict(values["unet"])})


SD15 = UNetConfig(context_dim=768, num_heads=8, num_head_channels=-1, use_linear_in_transformer=False)
MINI = UNetConfig(
    in_channels=8,
    out_channels=8,
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=1,
    transformer_depth=(1, 1),
    context_dim=128,
    num_head_channels=32,
)
