"""Configurations of the networks, as frozen dataclasses.

They are stored in the metadata of every file. Fields are named as in Stable Diffusion's own configurations. A
checkpoint's keys and shapes determine its `UNetConfig`, and the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_type_hints

from .values import Range, checked_fields, shown

CONTEXT_LENGTH = 77
"""Tokens of a prompt, as in CLIP: a start token, at most 75 of the text, an end token, padding."""
START_TOKEN, END_TOKEN = 49406, 49407
"""CLIP's tokens around a prompt. Stable Diffusion 1.x pads with the end token, 2.x with 0."""

InjectedNorm = Literal["frame", "clip"]
INJECTED_NORMS: tuple[InjectedNorm, ...] = get_args(InjectedNorm)
TemporalConvLayout = Literal["per_conv", "per_resblock", "none"]
TemporalAttentionLayout = Literal["self", "transformer", "none"]
TemporalPlaces = Literal["transformers", "levels", "levels_and_middle"]
PositionEncoding = Literal["sinusoidal", "absolute", "none"]
Hint = Literal["none", "given", "affinity"]
InjectionKind = Literal["spade", "concat", "add_dec", "add_encdec"]
INJECTIONS: tuple[InjectionKind, ...] = ("spade", "add_encdec", "add_dec", "concat")
Prediction = Literal["eps", "v"]
PREDICTIONS: tuple[Prediction, ...] = ("eps", "v")
Betas = Literal["scaled_linear", "linear"]
"""How beta_t rises from 0.00085 to 0.012: as squares of a linear ramp (Stable Diffusion) or linearly (AnimateDiff)."""
NUMBERED_FRAMES = 32
"""Most frames that `position_encoding` "absolute" has numbers for: AnimateDiff's table ends there."""
ROLES = ("image", "base", "tsr", "unet", "appearnet")
"""Kinds of files: a text-to-image model, a base model (key frames), a TSR model, or one network alone."""

C = TypeVar("C", bound="Config")


def centre_index(frames: int) -> int:
    """Return the index of the centre frame, N // 2: 4 of 9, 64 of 129 (section 4.1 leaves it open)."""
    return frames // 2


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def frozen(value: Any) -> Any:
    """Return lists as tuples, at every depth; JSON and TOML have only lists."""
    return tuple(frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


class Config:
    """The base of dataclasses that are stored in files as JSON objects.

    Attributes:
        RANGES: smallest and largest value of each numeric field, for values from files.
    """

    RANGES: ClassVar[dict[str, Range]] = {}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values; tuples become lists."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[C], values: dict[str, Any]) -> C:
        """Build the dataclass from a JSON object.

        Raises:
            ValueError: no JSON object, an unknown field, which is named, a value of another type or out of range, or
                values that contradict each other.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{cls.__name__} is {shown(values)}; expected a JSON object")
        known = sorted(f.name for f in fields(cls))  # type: ignore[arg-type]
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise ValueError(
                f"{cls.__name__} has no field {', '.join(shown(key)[1:-1] for key in unknown[:4])}; it has "
                f"{', '.join(known)}. The file may come from a newer version of MicroCinema: update the pack."
            )
        return cls(**checked_fields(values, get_type_hints(cls), cls.RANGES, cls.__name__))


@dataclass(frozen=True)
class UNetConfig(Config):
    """The configuration of a Stable Diffusion U-Net, by default 2.1's, and of its inflation (section 3.1).

    Attributes:
        in_channels, out_channels: channels of the latents.
        model_channels: width of the first level.
        channel_mult: width of each level in units of `model_channels`.
        num_res_blocks: ResBlocks of each level in the encoder.
        transformer_depth: transformer blocks after each ResBlock, by level; 0 for none.
        context_dim: width of the encoded prompt.
        num_heads, num_head_channels: attention heads of every layer, or their width; one of them is -1.
        use_linear_in_transformer: linear layers (2.x) rather than 1x1 convolutions (1.x) around transformer blocks.
        injected_norm: what the norms that SPADE modulates take their statistics over. `clip` is a whole clip, the
            paper's 3D group normalisation; `frame` is one frame, which keeps the image model unchanged at
            initialisation.
        temporal_conv: `per_conv` adds a 1D convolution over frames after each spatial convolution (the paper);
            `per_resblock` adds a stack of four after each ResBlock (published motion weights); `none` adds none.
        temporal_padding: what temporal convolutions see beyond the first and the last frame: that frame again
            (`edge`), or zeros (`zero`).
        temporal_attention: `self` adds one attention over frames after each spatial transformer (the paper);
            `transformer` adds a transformer over frames (published motion weights); `none` adds none.
        position_encoding: encoding of frame positions in temporal attention: `sinusoidal` of the distance to the
            centre frame, `absolute` of the frame's number, or `none`.
        temporal_attentions: attentions of each temporal transformer.
        temporal_heads: their heads; -1 takes as many as the spatial attention of the same width.
        temporal_norm: what the first norm of a temporal transformer takes its statistics over, a clip or each frame.
        temporal_at: where temporal transformers stand: after the spatial `transformers`; at all `levels`, so also
            after ResBlocks without a transformer, but not in the middle block; or at `levels_and_middle`.
        temporal_stem: whether a temporal transformer of eight heads of 64 channels follows the first convolution.
        image_context: tokens of the given picture that each frame attends to beside the text, where a clip has as many
            for each of its frames; 0 for networks that see no such tokens.
        fps_embedding: whether the network is told a frame rate, which is embedded as the timestep is.
        appearance_attention: whether each frame also attends to AppearNet's features of the given frames, after the
            spatial transformers of the finest level (`networks.appearance_attention`). It is not of the paper.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("in_channels", "out_channels", "model_channels", "context_dim"), (1, 65536)),
        **dict.fromkeys(("num_heads", "num_head_channels", "temporal_heads"), (-1, 65536)),
        "channel_mult": (1, 64),
        "num_res_blocks": (1, 64),
        "transformer_depth": (0, 64),
        "temporal_attentions": (1, 8),
        "image_context": (0, 4096),
    }

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
    position_encoding: PositionEncoding = "sinusoidal"
    temporal_padding: Literal["edge", "zero"] = "edge"
    temporal_attentions: int = 2
    temporal_heads: int = -1
    temporal_norm: Literal["clip", "frame"] = "clip"
    temporal_at: TemporalPlaces = "transformers"
    temporal_stem: bool = False
    image_context: int = 0
    fps_embedding: bool = False
    appearance_attention: bool = False

    def __post_init__(self) -> None:
        if len(self.channel_mult) != len(self.transformer_depth):
            raise ValueError(
                f"channel_mult has {len(self.channel_mult)} levels and transformer_depth "
                f"{len(self.transformer_depth)}; "
                "give one transformer depth for each level."
            )
        if not 1 <= len(self.channel_mult) <= 16:
            raise ValueError(f"channel_mult has {len(self.channel_mult)} levels; expected 1 to 16.")
        if 0 in (self.num_heads, self.num_head_channels, self.temporal_heads):
            raise ValueError(
                f"num_heads is {self.num_heads}, num_head_channels {self.num_head_channels} and temporal_heads "
                f"{self.temporal_heads}; none of them can be 0."
            )
        if (self.num_heads == -1) == (self.num_head_channels == -1):
            raise ValueError(
                f"num_heads is {self.num_heads} and num_head_channels {self.num_head_channels}; "
                "set one and leave the other -1."
            )

        self._require_whole_heads()
        self._require_one_layout()

    def _require_whole_heads(self) -> None:
        """Refuse attention heads that do not divide the width of a level with a transformer, or of the middle."""
        widths = [self.model_channels * multiple for multiple in self.channel_mult]
        attending = [width for width, depth in zip(widths, self.transformer_depth, strict=True) if depth]
        spatial = [(width, self.heads(width)) for width in (*attending, widths[-1])]
        over_frames = attending if self.temporal_at == "transformers" else widths
        temporal = [(width, self.heads_over_frames(width)) for width in (*over_frames, widths[-1])]
        for width, heads in (*spatial, *(temporal if self.temporal_attention == "transformer" else [])):
            if heads < 1 or width % heads:
                raise ValueError(
                    f"num_heads {self.num_heads}, num_head_channels {self.num_head_channels} and temporal_heads "
                    f"{self.temporal_heads} make {heads} heads, which do not divide a level's {width} channels."
                )

    def _require_one_layout(self) -> None:
        """Refuse temporal fields that contradict each other."""
        if self.temporal_attention == "self" and self.position_encoding == "absolute":
            raise ValueError(
                'position_encoding "absolute" needs temporal_attention "transformer"; it is "self".'
            )
        if self.temporal_conv == "per_resblock" and self.temporal_at != "transformers":
            raise ValueError(
                f'temporal_conv "per_resblock" needs temporal_at "transformers"; it is "{self.temporal_at}".'
            )
        if self.appearance_attention and (not self.transformer_depth[0] or self.model_channels % 8):
            raise ValueError(
                "appearance_attention is true; it needs a transformer at the finest level and a multiple of 8 "
                f"model_channels, which are {self.model_channels}, with transformer_depth {self.transformer_depth}."
            )

    @property
    def downscale(self) -> int:
        """Downsampling factor of the U-Net; height and width of latents should be multiples of it."""
        return 2 ** (len(self.channel_mult) - 1)

    def heads(self, channels: int) -> int:
        """Return the number of attention heads of a layer with this many channels."""
        return self.num_heads if self.num_heads != -1 else channels // self.num_head_channels

    def heads_over_frames(self, channels: int) -> int:
        """Return the number of attention heads of a temporal transformer with this many channels."""
        return self.temporal_heads if self.temporal_heads != -1 else self.heads(channels)

    def as_2d(self) -> UNetConfig:
        """Return the configuration of the image model: the same spatial layers, no temporal ones."""
        return replace(
            self, **{**TEMPORAL_LAYOUTS["paper"], "temporal_conv": "none", "temporal_attention": "none"}
        )

    def inflated(self, **changes: Any) -> UNetConfig:
        """Return the configuration of the video model: the paper's temporal layout, overridden by `changes`."""
        return replace(self, **{**TEMPORAL_LAYOUTS["paper"], **changes})


TEMPORAL_LAYOUTS: dict[str, dict[str, Any]] = {
    "paper": {
        "temporal_conv": "per_conv",
        "temporal_padding": "edge",
        "temporal_attention": "self",
        "position_encoding": "sinusoidal",
        "temporal_attentions": 2,
        "temporal_heads": -1,
        "temporal_norm": "clip",
        "temporal_at": "transformers",
        "temporal_stem": False,
        "image_context": 0,
        "fps_embedding": False,
        "appearance_attention": False,
    }
}
"""Values by name of `UNetConfig`'s fields that an image model lacks: where temporal layers stand, and what they are.

`paper` is section 3.1. The others are those of published weights: `animatediff` (version 3, and PIA), `animatediff_v2`,
`sparsectrl` (its encoder), and `modelscope` (ModelScope and ZeroScope).
"""
_MOTION_MODULE = {
    "temporal_conv": "none",
    "temporal_attention": "transformer",
    "position_encoding": "absolute",
    "temporal_heads": 8,
    "temporal_norm": "frame",
    "temporal_at": "levels",
}
TEMPORAL_LAYOUTS |= {
    name: {**TEMPORAL_LAYOUTS["paper"], **fields}
    for name, fields in {
        "animatediff": _MOTION_MODULE,
        "animatediff_v2": {**_MOTION_MODULE, "temporal_at": "levels_and_middle"},
        "sparsectrl": {**_MOTION_MODULE, "temporal_attentions": 1},
        "modelscope": {
            "temporal_conv": "per_resblock",
            "temporal_padding": "zero",
            "temporal_attention": "transformer",
            "position_encoding": "none",
            "temporal_stem": True,
        },
    }.items()
}


Motion = Literal["small", "medium", "large"]
MOTIONS: tuple[Motion, ...] = get_args(Motion)
AFFINITIES: dict[Motion, tuple[float, ...]] = {
    "small": (1.0, 0.9, 0.85, 0.85, 0.85, 0.8),
    "medium": (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75),
    "large": (1.0, 0.8, *[0.7] * 8, 0.6, 0.5, 0.5),
}
"""Likeness of a frame to the given one by their distance; further frames take the last value.

From openmmlab/PIA, animatediff/utils/util.py: the first three masks of its image animation.
"""


@dataclass(frozen=True)
class ResamplerConfig(Config):
    """The configuration of the network that turns a picture's CLIP features into image tokens; by default Crafter's.

    Attributes:
        tokens: tokens of a whole clip.
        width: channels inside.
        layers: layers of attention and feed-forward.
        heads, head_width: attention heads of each layer, and their channels.
        in_width: channels of the features, the last hidden state of a CLIP vision model.
        out_width: channels of the tokens, the same as the text's.
        grey: positions of the features of mid grey that the weights hold, for the unguided branch. Published weights
            hold none (0), and the host's CLIP_VISION makes them.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("tokens", "width", "heads", "head_width", "in_width", "out_width"), (1, 65536)),
        "layers": (1, 128),
        "grey": (0, 65536),
    }

    tokens: int = 256
    width: int = 1024
    layers: int = 4
    heads: int = 12
    head_width: int = 64
    in_width: int = 1280
    out_width: int = 1024
    grey: int = 0


@dataclass(frozen=True)
class AppearNetConfig(Config):
    """The configuration of AppearNet (section 3.2).

    Attributes:
        unet: the U-Net that AppearNet belongs to, and whose encoder and middle block it copies.
        injection: how features are injected into the U-Net; the four rows of the paper's Table 2.
        hidden: width of the SPADE heads.
        spade_norms: the norms of a ResBlock that are modulated: `both`, or only the second (`out`).
        time_conditioned, text_conditioned: whether features depend on timestep and prompt. If neither, they are
            computed once per clip, at t = 0 and the empty prompt.
        own_encoder: the encoder, where it is not a copy of the U-Net's.
        hint: a further input channel: `given` is 1 on frames whose picture is given and 0 on others, `affinity` falls
            with the distance to the given frame; `none` adds none.
        between: what AppearNet sees at frames whose picture is not given: the `line` between the given ones, or
            `zeros`.
        places: where the weights take pictures: at the `centre`, at `any` frame, or at both `ends`. Those with a hint
            take them at any.
        resampler: what makes image tokens of a picture's CLIP features; None for weights that take none.
    """

    RANGES: ClassVar[dict[str, Range]] = {"hidden": (1, 65536)}

    unet: UNetConfig = field(default_factory=UNetConfig)
    injection: InjectionKind = "spade"
    hidden: int = 128
    spade_norms: Literal["both", "out"] = "both"
    time_conditioned: bool = False
    text_conditioned: bool = False
    own_encoder: UNetConfig | None = None
    hint: Hint = "none"
    between: Literal["line", "zeros"] = "line"
    places: Literal["centre", "any", "ends"] = "centre"
    resampler: ResamplerConfig | None = None

    def __post_init__(self) -> None:
        if self.injection not in INJECTIONS:
            raise ValueError(f"injection is {self.injection!r}; expected one of {', '.join(INJECTIONS)}.")
        if self.unet.appearance_attention and (self.injection == "concat" or self.own_encoder is not None):
            raise ValueError(
                "appearance_attention is true in a U-Net whose AppearNet has no features of it: its injection is "
                f'{self.injection!r}; expected "spade", "add_encdec" or "add_dec", and no encoder of its own.'
            )
        if self.own_encoder is not None and self.own_encoder.in_channels != self.input_channels:
            raise ValueError(
                f"own_encoder takes {self.own_encoder.in_channels} channels, and its input has {self.input_channels}."
            )

    @property
    def encoder(self) -> UNetConfig:
        """AppearNet's encoder.

        A copy of the U-Net's knows no frame positions and repeats edge frames, so that equal frames stay equal (the
        one-frame shortcut).
        """
        if self.own_encoder is not None:
            return self.own_encoder
        return replace(
            self.unet,
            in_channels=self.input_channels,
            position_encoding="none",
            temporal_padding="edge",
            injected_norm="frame",
            image_context=0,
            fps_embedding=False,
            appearance_attention=False,
        )

    @property
    def input_channels(self) -> int:
        """Channels of AppearNet's input: the latents' and the hint's."""
        return self.unet.in_channels + (self.hint != "none")

    @property
    def takes_any_place(self) -> bool:
        """Whether the weights were trained with a given picture at any frame, or at both ends."""
        return self.hint != "none" or self.places != "centre"

    @property
    def sees_z_c_alone(self) -> bool:
        """Whether AppearNet's input is the noise prior's z_c."""
        return self.hint == "none" and self.between == "line"

    @property
    def equal_frames_stay_equal(self) -> bool:
        """Whether one frame can stand for all of a clip with one centre frame (the one-frame shortcut)."""
        return self.own_encoder is None and self.sees_z_c_alone

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AppearNetConfig:
        """Build the dataclass from a JSON object with other configurations inside; errors as `Config.from_dict`."""
        if not isinstance(values, dict):
            raise ValueError(f"{cls.__name__} is {shown(values)}; expected a JSON object")
        kinds: dict[str, type[Config]] = {
            "unet": UNetConfig,
            "own_encoder": UNetConfig,
            "resampler": ResamplerConfig,
        }
        given = {key: kind for key, kind in kinds.items() if values.get(key) is not None}
        return super().from_dict(
            {**values, **{key: kind.from_dict(values[key]) for key, kind in given.items()}}
        )


@dataclass(frozen=True)
class VAEConfig(Config):
    """The configuration of the 8x autoencoder, which folds `fold` x `fold` pixels into channels first.

    Attributes:
        latent_channels: channels of the latents.
        fold: side of the folded squares; only 4 is possible.
        widths: channels at 1/4 and at 1/8 of the picture's size.
        res_blocks, decoder_blocks: residual blocks at each of the two sizes, of the encoder and of the decoder.
        norm_groups: groups of the group norms.
        latent_rgb: a linear map from latents to RGB in [-1, 1] for previews: 3 rows of `latent_channels` weights and a
            bias; None if not fitted.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        "latent_channels": (1, 4096),
        "widths": (1, 65536),
        **dict.fromkeys(("res_blocks", "decoder_blocks"), (0, 64)),
        "norm_groups": (1, 4096),
    }

    latent_channels: int = 8
    fold: int = 4
    widths: tuple[int, int] = (96, 128)
    res_blocks: int = 2
    decoder_blocks: int = 3
    norm_groups: int = 32
    latent_rgb: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.fold != 4:
            raise ValueError(
                f"fold is {self.fold}; the one stride-2 level makes 8x compression with fold = 4 only"
            )
        for width in self.widths:
            if width % self.norm_groups:
                raise ValueError(f"width {width} is not divisible by norm_groups {self.norm_groups}")

    @property
    def downscale(self) -> int:
        """Pixels per latent, along each side."""
        return 2 * self.fold


@dataclass(frozen=True)
class TextConfig(Config):
    """The configuration of the text encoder; its vocabulary is that of CLIP's tokeniser.

    Attributes:
        vocab_size: number of tokens.
        width: channels.
        layers: transformer layers.
        heads: attention heads of each layer.
        length: tokens of a prompt.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        "vocab_size": (1, 1_000_000),
        **dict.fromkeys(("width", "heads", "length"), (1, 65536)),
        "layers": (1, 128),
    }

    vocab_size: int = 49408
    width: int = 128
    layers: int = 3
    heads: int = 4
    length: int = CONTEXT_LENGTH

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}")

    def host_config(self) -> dict[str, Any]:
        """Return the configuration in the form of ComfyUI's text models (`textmodel_json_config`)."""
        return {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "hidden_act": "quick_gelu",
            "hidden_size": self.width,
            "projection_dim": self.width,
            "intermediate_size": 4 * self.width,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "max_position_embeddings": self.length,
            "vocab_size": self.vocab_size,
            "bos_token_id": START_TOKEN,
            "eos_token_id": END_TOKEN,
            "pad_token_id": END_TOKEN,
            "layer_norm_eps": 1e-5,
        }


SD15 = UNetConfig(context_dim=768, num_heads=8, num_head_channels=-1, use_linear_in_transformer=False)
