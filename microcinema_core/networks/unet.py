"""The 3D U-Net (section 3.1): Stable Diffusion's, with a layer over time after each convolution and each attention.

`forward` is the table of contents. Order and names of the hooks follow the host's UNetModel, so that all that patches a
stock model patches this one: comfy/ldm/modules/diffusionmodules/openaimodel.py of ComfyUI 0.3.75 and 0.33.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from . import temporal
from .injection import NOTHING, Injection, add
from .layers import Attention, LayerFactory, attention, timestep_embedding
from .spatial import Downsample, Options, ResBlock, SpatialTransformer, Upsample


class Block(nn.ModuleList):
    """One entry of input_blocks, middle_block or output_blocks: its layers, in order."""

    def __init__(self, name: str, layers: list[nn.Module]) -> None:
        super().__init__(layers)
        self.block_name = name

    def resblocks(self) -> Iterator[tuple[str, ResBlock]]:
        """The ResBlocks with their full names, by which an Injection addresses them."""
        for index, layer in enumerate(self):
            if isinstance(layer, ResBlock):
                yield f"{self.block_name}.{index}", layer


class Encoder3D(nn.Module):
    """Time embedding, input blocks and middle: the part that AppearNet shares with the U-Net."""

    def __init__(self, config: UNetConfig, make: LayerFactory) -> None:
        super().__init__()
        self.config = config
        self.dtype = make.dtype
        embed_dim = config.model_channels * 4
        self.time_embed = nn.Sequential(
            make.linear(config.model_channels, embed_dim), nn.SiLU(), make.linear(embed_dim, embed_dim)
        )
        self.input_blocks, self.skip_channels = _input_blocks(config, embed_dim, make)
        channels = self.skip_channels[-1]
        self.conv_in_temporal = temporal.after_conv(config.model_channels, config, make)
        self.middle_block = Block(
            "middle_block",
            [
                ResBlock(channels, channels, embed_dim, config, make),
                SpatialTransformer(channels, 1, config, make),
                ResBlock(channels, channels, embed_dim, config, make),
            ],
        )

    def embed(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """(n,) timesteps -> (n, 4 * model_channels)."""
        return self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(dtype))

    def run(
        self,
        block: nn.Module,
        h: Tensor,
        emb: Tensor,
        context: Tensor | None,
        options: Options,
        frames: int,
        *,
        injection: Injection = NOTHING,
        size: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """Runs the layers of one block. `size` is the height and width that an upsampler must reach."""
        assert isinstance(block, Block)
        for index, layer in enumerate(block):
            if isinstance(layer, ResBlock):
                name = f"{block.block_name}.{index}"
                first, second = injection.norms.get((name, "in")), injection.norms.get((name, "out"))
                h = layer(h, emb, frames, first=first, second=second)
            elif isinstance(layer, SpatialTransformer):
                h = layer(h, context, options, frames)
                options["transformer_index"] = options.get("transformer_index", 0) + 1
            elif isinstance(layer, Upsample):
                h = layer(h, frames, size)
            else:
                h = self._plain(layer, h, emb, context, options, frames)
        return h

    def _plain(
        self, layer: nn.Module, h: Tensor, emb: Tensor, context: Tensor | None, options: Options, frames: int
    ) -> Tensor:
        """A downsampler or the first convolution, which the host lets a patch stand in for."""
        for class_type, handler in options.get("patches", {}).get("forward_timestep_embed_patch", ()):
            if isinstance(layer, class_type):
                return handler(layer, h, emb, context, options, None, None, frames, None)
        if isinstance(layer, Downsample):
            return layer(h, frames)
        return self.conv_in_temporal(layer(h), frames)


class UNet3D(Encoder3D):
    """The main branch. Alone it is a text-to-video model; with an Injection, an image&text-to-video model."""

    def __init__(
        self,
        config: UNetConfig,
        *,
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attend: Attention = attention,
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
        transformer_options: Options | None = None,
        *,
        frames: int = 1,
        appearance: Injection | None = None,
    ) -> Tensor:
        """Predicts the noise (or v) of a batch of clips.

        x: noisy latents `(b f) c h w`. timesteps: `(b f)`, fractions allowed. context: text, `(b f) l d`.
        control: the host's ControlNet residuals. frames: f. Returns `(b f) c h w`.
        Raises ValueError where the batch does not hold whole clips.
        """
        if x.shape[0] % frames:
            raise ValueError(
                f"a batch of {x.shape[0]} latents does not divide into clips of {frames} frames; "
                f"give a multiple of {frames}."
            )
        options: Options = {} if transformer_options is None else transformer_options
        options["original_shape"] = list(x.shape)
        options["transformer_index"] = 0
        patches = options.get("patches", {})
        injection = appearance or NOTHING

        emb = self.embed(timesteps, x.dtype)
        for patch in patches.get("emb_patch", ()):
            emb = patch(emb, self.config.model_channels, options)

        h, skips = x, []
        for index, block in enumerate(self.input_blocks):
            options["block"] = ("input", index)
            h = self.run(block, h, emb, context, options, frames, injection=injection)
            if index == 0:
                h = add(h, injection.conv_in, frames)
            h = add_control(h, control, "input")
            for patch in patches.get("input_block_patch", ()):
                h = patch(h, options)
            skips.append(h)
            for patch in patches.get("input_block_patch_after_skip", ()):
                h = patch(h, options)
            h = add(h, injection.encoder.get(index), frames)

        options["block"] = ("middle", 0)
        h = self.run(self.middle_block, h, emb, context, options, frames, injection=injection)
        h = add_control(h, control, "middle")
        for patch in patches.get("middle_block_after_patch", ()):
            arguments = {"h": h, "x": x, "emb": emb, "context": context, "y": y, "timesteps": timesteps}
            h = patch({**arguments, "transformer_options": options})["h"]
        h = add(h, injection.middle, frames)

        for index, block in enumerate(self.output_blocks):
            options["block"] = ("output", index)
            skip = add_control(skips.pop(), control, "output")
            skip = add(skip, injection.skips.get(len(skips)), frames)
            for patch in patches.get("output_block_patch", ()):
                h, skip = patch(h, skip, options)
            h = torch.cat([h, skip], dim=1)
            size = (int(skips[-1].shape[-2]), int(skips[-1].shape[-1])) if skips else (0, 0)
            h = self.run(block, h, emb, context, options, frames, injection=injection, size=size)

        return self.out_temporal(self.out(h.to(x.dtype)), frames)


def is_temporal(key: str) -> bool:
    """Whether a U-Net key belongs to a layer over time."""
    return "temporal." in key


def add_control(h: Tensor, control: dict[str, list[Tensor | None]] | None, where: str) -> Tensor:
    """Adds the next ControlNet residual of the host, which hands them over in the order they are taken."""
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
            block: list[nn.Module] = [ResBlock(channels, out, embed_dim, config, make)]
            if depth:
                block.append(SpatialTransformer(out, depth, config, make))
            layers.append(block)
            channels = out
            widths.append(channels)
        if level < len(config.channel_mult) - 1:
            layers.append([Downsample(channels, config, make)])
            widths.append(channels)
    return nn.ModuleList(Block(f"input_blocks.{i}", block) for i, block in enumerate(layers)), widths


def _output_blocks(config: UNetConfig, skip_channels: list[int], make: LayerFactory) -> nn.ModuleList:
    channels = skip_channels[-1]
    embed_dim = config.model_channels * 4
    layers: list[list[nn.Module]] = []
    for level in reversed(range(len(config.channel_mult))):
        out = config.model_channels * config.channel_mult[level]
        for index in range(config.num_res_blocks + 1):
            block: list[nn.Module] = [ResBlock(channels + skip_channels.pop(), out, embed_dim, config, make)]
            if config.transformer_depth[level]:
                block.append(SpatialTransformer(out, config.transformer_depth[level], config, make))
            if level and index == config.num_res_blocks:
                block.append(Upsample(out, config, make))
            layers.append(block)
            channels = out
    return nn.ModuleList(Block(f"output_blocks.{i}", block) for i, block in enumerate(layers))
