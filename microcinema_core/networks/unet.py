"""The 3D U-Net (section 3.1): Stable Diffusion's, with temporal convolutions and attentions.

`forward` is the table of contents. Order and names of the hooks follow the host's UNetModel, so that every patch for
a stock model works on this one: comfy/ldm/modules/diffusionmodules/openaimodel.py of ComfyUI 0.3.75 and 0.33.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config import NUMBERED_FRAMES, UNetConfig
from . import temporal
from .injection import NO_INJECTION, Injection, add_feature, tokens_of_frames
from .layers import AttentionFunction, LayerFactory, attention, timestep_embedding, zero_
from .spatial import Downsample, ResBlock, SpatialTransformer, TransformerOptions, Upsample


class UNetBlock(nn.ModuleList):
    """One entry of input_blocks or output_blocks, or the middle block: its layers, in order."""

    def __init__(self, name: str, layers: list[nn.Module]) -> None:
        super().__init__(layers)
        self.block_name = name

    def resblocks(self) -> Iterator[tuple[str, ResBlock]]:
        """Yield the ResBlocks with their full names, by which an Injection addresses them."""
        for index, layer in enumerate(self):
            if isinstance(layer, ResBlock):
                yield f"{self.block_name}.{index}", layer


class Encoder3D(nn.Module):
    """Time embedding, input blocks and middle block: the part that AppearNet shares with the U-Net."""

    def __init__(self, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.config = config
        self.dtype = make.dtype
        embed_dim = config.model_channels * 4
        self.time_embed = _embedding(config.model_channels, embed_dim, make)
        if config.fps_embedding:
            self.fps_embed = _embedding(config.model_channels, embed_dim, make)
            zero_(self.fps_embed[-1])
        self.input_blocks, self.skip_channels = _input_blocks(config, embed_dim, make)
        channels = self.skip_channels[-1]
        self.conv_in_temporal = temporal.after_first_conv(config.model_channels, config, make)
        self.middle_block = UNetBlock(
            "middle_block",
            [
                ResBlock(channels, channels, embed_dim, config, make),
                SpatialTransformer(channels, 1, config, make, middle=True),
                ResBlock(channels, channels, embed_dim, config, make),
            ],
        )

    def require_numbered(self, frames: int) -> None:
        """Refuse more frames than the weights have numbers for.

        Raises:
            ValueError: the number of frames and the limit.
        """
        if self.config.position_encoding == "absolute" and frames > NUMBERED_FRAMES:
            raise ValueError(
                f"the video has {frames} frames, and these motion weights take at most {NUMBERED_FRAMES}: "
                "make a shorter video, and continue it from its last frame."
            )

    def embed(self, timesteps: Tensor, dtype: torch.dtype, fps: float | None = None) -> Tensor:
        """Map timesteps `n`, and the frame rate that a network may be told, to embeddings `n e`.

        e is 4 * model_channels. Without a rate, or a layer for it, the timesteps stand alone.
        """
        channels = self.config.model_channels
        emb = self.time_embed(timestep_embedding(timesteps, channels).to(dtype))
        if fps is None or not self.config.fps_embedding:
            return emb
        rate = torch.full((1,), fps, device=timesteps.device)
        return emb + self.fps_embed(timestep_embedding(rate, channels).to(dtype))

    def run_block(
        self,
        block: nn.Module,
        h: Tensor,
        emb: Tensor,
        context: Tensor | None,
        options: TransformerOptions,
        frames: int,
        *,
        injection: Injection = NO_INJECTION,
        size: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """Run the layers of one block on `(b f) c h w`.

        Args:
            block: a UNetBlock.
            h: activations.
            emb: embeddings `(b f) e` of the timesteps.
            context: text `(b f) l d`.
            options: the host's `transformer_options`.
            frames: frames per video, f.
            injection: what the block itself adds: SPADE's modulations, image tokens `(b f) l d`, features of given
                frames, and the first block `conv_in`.
            size: height and width that an upsampler must reach.
        """
        assert isinstance(block, UNetBlock)
        for index, layer in enumerate(block):
            if isinstance(layer, ResBlock):
                name = f"{block.block_name}.{index}"
                first, second = injection.norms.get((name, "in")), injection.norms.get((name, "out"))
                h = layer(h, emb, frames, first=first, second=second)
            elif isinstance(layer, SpatialTransformer):
                given = injection.given.get(block.block_name)
                h = layer(h, context, options, frames, injection.image, given)
                options["transformer_index"] = options.get("transformer_index", 0) + 1
            elif isinstance(layer, Upsample):
                h = layer(h, frames, size)
            else:
                h = self._plain(layer, h, emb, context, options, frames, injection)
        return h

    def _plain(
        self,
        layer: nn.Module,
        h: Tensor,
        emb: Tensor,
        context: Tensor | None,
        options: TransformerOptions,
        frames: int,
        injection: Injection,
    ) -> Tensor:
        """Run a downsampler or the first convolution, which a patch of the host's may replace."""
        for class_type, handler in options.get("patches", {}).get("forward_timestep_embed_patch", ()):
            if isinstance(layer, class_type):
                return handler(layer, h, emb, context, options, None, None, frames, None)
        if isinstance(layer, Downsample):
            return layer(h, frames)
        return self.conv_in_temporal(add_feature(layer(h), injection.conv_in, frames), frames)


class UNet3D(Encoder3D):
    """The main branch (section 3.1).

    Alone it is a text-to-video model, with an Injection the image&text-to-video model. The predicted tensor is noise
    or v, by the file's metadata; the network itself does not depend on it.

    Args:
        config: the shape, its temporal layout included.
        operations: namespace of layer classes, torch.nn or one of the host's.
        dtype: dtype of the weights; None is torch's default.
        device: device of the weights; None is torch's default.
        attend: attention function.
        attn_precision: dtype in which the host computes attention weights; None leaves it to the host.
    """

    def __init__(
        self,
        config: UNetConfig,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attend: AttentionFunction = attention,
        attn_precision: torch.dtype | None = None,
    ) -> None:
        make = LayerFactory(operations, dtype, device, attend, attn_precision)
        super().__init__(config, make)
        self.output_blocks = _output_blocks(config, list(self.skip_channels), make)
        width = config.model_channels * config.channel_mult[0]
        self.out = nn.Sequential(
            make.group_norm(width), nn.SiLU(), make.conv(width, config.out_channels, 3, padding=1)
        )
        self.out_temporal = temporal.after_conv(config.out_channels, config, make)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: TransformerOptions | None = None,
        *,
        frames: int = 1,
        injection: Injection | None = None,
        fps: float | None = None,
    ) -> Tensor:
        """Predict the noise (Eq. 5) or v of a batch of clips, `(b f) c h w`.

        Args:
            x: noisy latents z_t of Eq. 4, `(b f) c h w`.
            timesteps: `(b f)`; fractions are allowed.
            context: text `(b f) l d`.
            y: unused; passed on to the host's patches.
            control: the host's ControlNet residuals.
            transformer_options: the host's patches and state.
            frames: frames per clip, f.
            injection: AppearNet's output; None is the text-to-video model.
            fps: frame rate that a network with `fps_embedding` is told (`ModelSpec.rates`); None tells it none.

        Raises:
            ValueError: the batch is not a multiple of `frames`, or more frames than the weights have numbers for.
        """
        if x.shape[0] % frames:
            raise ValueError(
                f"a batch of {x.shape[0]} latents does not divide into clips of {frames} frames; "
                f"give a multiple of {frames}."
            )
        self.require_numbered(frames)
        options: TransformerOptions = {} if transformer_options is None else transformer_options
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = 0
        patches = options.get("patches", {})
        injection = injection or NO_INJECTION
        if injection.image is not None:
            image = tokens_of_frames(injection.image, frames, self.config.image_context)
            injection = replace(injection, image=image)

        emb = self.embed(timesteps, x.dtype, fps)
        for patch in patches.get("emb_patch", ()):
            emb = patch(emb, self.config.model_channels, options)

        h, skips = x, []
        for index, block in enumerate(self.input_blocks):
            options["block"] = ("input", index)
            h = self.run_block(block, h, emb, context, options, frames, injection=injection)
            h = add_control(h, control, "input")
            for patch in patches.get("input_block_patch", ()):
                h = patch(h, options)
            skips.append(h)
            for patch in patches.get("input_block_patch_after_skip", ()):
                h = patch(h, options)
            h = add_feature(h, injection.encoder.get(index), frames)

        options["block"] = ("middle", 0)
        h = self.run_block(self.middle_block, h, emb, context, options, frames, injection=injection)
        h = add_control(h, control, "middle")
        for patch in patches.get("middle_block_after_patch", ()):
            arguments = {"h": h, "x": x, "emb": emb, "context": context, "y": y, "timesteps": timesteps}
            h = patch({**arguments, "transformer_options": options})["h"]
        h = add_feature(h, injection.middle, frames)

        for index, block in enumerate(self.output_blocks):
            options["block"] = ("output", index)
            skip = add_control(skips.pop(), control, "output")
            skip = add_feature(skip, injection.skips.get(len(skips)), frames)
            for patch in patches.get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            h = torch.cat([h, skip], dim=1)
            del skip
            size = (int(skips[-1].shape[-2]), int(skips[-1].shape[-1])) if skips else (0, 0)
            h = self.run_block(block, h, emb, context, options, frames, injection=injection, size=size)

        return self.out_temporal(self.out(h.to(x.dtype)), frames)


def _embedding(channels: int, embed_dim: int, make: LayerFactory) -> nn.Sequential:
    return nn.Sequential(make.linear(channels, embed_dim), nn.SiLU(), make.linear(embed_dim, embed_dim))


def is_temporal(key: str) -> bool:
    """Return whether a state-dict key of the U-Net belongs to a temporal layer, or to `appearance_attention`."""
    return "temporal." in key or ".appearance_attention." in key


def add_control(h: Tensor, control: dict[str, list[Tensor | None]] | None, where: str) -> Tensor:
    """Add the next ControlNet residual of the host, whose lists end with the residual that comes first."""
    if not control or not control.get(where):
        return h
    residual = control[where].pop()
    return h if residual is None else h + residual


def _input_blocks(config: UNetConfig, embed_dim: int, make: LayerFactory) -> tuple[nn.ModuleList, list[int]]:
    channels = config.model_channels
    layers: list[list[nn.Module]] = [[make.conv(config.in_channels, channels, 3, padding=1)]]
    widths = [channels]
    for level, (mult, depth) in enumerate(zip(config.channel_mult, config.transformer_depth, strict=True)):
        out = config.model_channels * mult
        for _ in range(config.num_res_blocks):
            feature = out if config.appearance_attention and not level else 0
            block: list[nn.Module] = [ResBlock(channels, out, embed_dim, config, make, alone=not depth)]
            if depth:
                block.append(SpatialTransformer(out, depth, config, make, feature=feature))
            layers.append(block)
            channels = out
            widths.append(channels)
        if level < len(config.channel_mult) - 1:
            layers.append([Downsample(channels, config, make)])
            widths.append(channels)
    return nn.ModuleList(UNetBlock(f"input_blocks.{i}", block) for i, block in enumerate(layers)), widths


def _output_blocks(config: UNetConfig, skip_channels: list[int], make: LayerFactory) -> nn.ModuleList:
    channels = skip_channels[-1]
    embed_dim = config.model_channels * 4
    layers: list[list[nn.Module]] = []
    for level in reversed(range(len(config.channel_mult))):
        out = config.model_channels * config.channel_mult[level]
        for index in range(config.num_res_blocks + 1):
            skip, depth = skip_channels.pop(), config.transformer_depth[level]
            width = channels + skip
            feature = skip if config.appearance_attention and not level else 0
            block: list[nn.Module] = [ResBlock(width, out, embed_dim, config, make, alone=not depth)]
            if depth:
                block.append(SpatialTransformer(out, depth, config, make, feature=feature))
            if level and index == config.num_res_blocks:
                block.append(Upsample(out, config, make))
            layers.append(block)
            channels = out
    return nn.ModuleList(UNetBlock(f"output_blocks.{i}", block) for i, block in enumerate(layers))
