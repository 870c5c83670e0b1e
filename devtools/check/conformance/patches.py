"""What packs hang on a MODEL by hand: the calls, not the packs."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .world import World

Options = dict[str, Any]


def picture_prompts(world: World) -> Any:
    """The calls of ComfyUI_IPAdapter_plus: every attn2 replaced under (block, id), picture tokens added to the text's.

    It reads from the host's options: cond_or_uncond, sigmas, block, transformer_index, n_heads and original_shape,
    and masks the picture's share over the frame.
    """
    model = world.model.clone()
    options = model.model_options["transformer_options"].copy()
    replace = options.get("patches_replace", {}).copy()
    attn2 = replace.get("attn2", {}).copy()
    for block in _blocks(world):
        attn2[block] = _PicturePrompt(world, number=len(attn2))
    options["patches_replace"] = {**replace, "attn2": attn2}
    model.model_options["transformer_options"] = options
    return model


def _blocks(world: World) -> list[tuple[str, int]]:
    """(block, id) of every transformer, in the order in which the U-Net runs them."""
    names = [name for name, _ in world.stock.model.diffusion_model.named_modules()]
    found = [name.split(".") for name in names if name.endswith("transformer_blocks.0.attn2")]
    order = {"input_blocks": "input", "middle_block": "middle", "output_blocks": "output"}
    return [(order[part[0]], 0 if part[0] == "middle_block" else int(part[1])) for part in found]


class _PicturePrompt:
    """One attention's replacement: text attention plus masked attention to four picture tokens."""

    def __init__(self, world: World, number: int) -> None:
        self.number, self.world = number, world

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: Options) -> Tensor:
        from comfy.ldm.modules.attention import optimized_attention

        branches = options["cond_or_uncond"]
        text = optimized_attention(q, k, v, options["n_heads"])
        if float(options["sigmas"].detach().cpu()[0]) < 0.5:
            return text
        frames = q.shape[0] // len(branches)
        share = 0.3 + 0.05 * options["transformer_index"] + (0.2 if options["block"][0] == "middle" else 0.0)
        generator = torch.Generator().manual_seed(self.number)
        tokens = torch.randn(2, frames, 4, k.shape[-1], generator=generator)
        tokens = torch.cat([tokens[branch] for branch in branches]).to(q)
        return text + share * optimized_attention(q, tokens, tokens, options["n_heads"]) * self._mask(
            q, options
        )

    def _mask(self, q: Tensor, options: Options) -> Tensor:
        height, width = options["original_shape"][-2:]
        rows = math.ceil(height / math.sqrt(height * width / q.shape[1]))
        mask = F.interpolate(self.world.mask()[None], size=(rows, q.shape[1] // rows), mode="bilinear")
        return mask.reshape(1, -1, 1).to(q)


def smoothed_energy(world: World) -> Any:
    """SEG's call: self-attention in the middle with queries blurred over the frame."""
    model = world.model.clone()

    def blurred(q: Tensor, k: Tensor, v: Tensor, options: Options) -> Tensor:
        from comfy.ldm.modules.attention import optimized_attention

        height, width = options["activations_shape"][-2:]
        grid = q.movedim(1, 2).unflatten(-1, (height, width))
        grid = F.avg_pool2d(F.pad(grid, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return optimized_attention(grid.flatten(-2).movedim(1, 2), k, v, heads=options["n_heads"])

    model.set_model_attn1_replace(blurred, "middle", 0, 0)
    return model


def attention_hooks(world: World) -> Any:
    """Every attention hook at once: inputs, outputs, replacements, the middle."""
    model = world.model.clone()
    model.set_model_attn1_patch(lambda q, k, v, extra: (q * 1.1, k, v * (1 + extra["block"][1] * 0.02)))
    model.set_model_attn2_patch(lambda q, k, v, extra: (q, k * 0.9, v))
    model.set_model_attn1_output_patch(lambda n, extra: n * (1.0 + 0.01 * extra["n_heads"]))
    model.set_model_attn2_output_patch(lambda n, extra: n + extra["dim_head"] * 1e-3)
    model.set_model_patch(lambda x, extra: x * (0.95 + 0.001 * extra["transformer_index"]), "middle_patch")
    model.set_model_attn2_replace(lambda q, k, v, extra: q * 0.5, "middle", 0)
    model.set_model_attn1_replace(lambda q, k, v, extra: v, "input", 1, 0)
    return model


def block_hooks(world: World) -> Any:
    """Every hook around a block, and a wrapper around the whole network."""
    import comfy.patcher_extension

    model = world.model.clone()
    model.set_model_emb_patch(lambda emb, channels, options: emb * 1.05)
    model.set_model_input_block_patch(lambda h, options: h * (1 + 0.02 * options["block"][1]))
    model.set_model_input_block_patch_after_skip(lambda h, options: h * 0.9)
    model.set_model_output_block_patch(lambda h, skip, options: (h * 1.1, skip * 0.8))

    def halve(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return executor(x * 0.5, *args, **kwargs)

    model.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, halve)
    return model


def function_wrapper(world: World) -> Any:
    """`set_model_unet_function_wrapper`, as caches and samplers of packs use it, with a CFG function of its own."""
    model = world.model.clone()

    def wrapped(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        branches = len(arguments["cond_or_uncond"])
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"]) * (
            1 - 0.01 * branches
        )

    model.set_model_unet_function_wrapper(wrapped)
    model.set_model_sampler_cfg_function(lambda args: args["uncond"] + 3.0 * (args["cond"] - args["uncond"]))
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0.98)
    return model
