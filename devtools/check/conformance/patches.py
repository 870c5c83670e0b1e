"""Cases that change the MODEL, and patches of other packs (the same calls, without those packs)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .compare import Case
from .inputs import lora_hook
from .world import STEPS, NoInputError, World

Options = dict[str, Any]


def lora(*names: str) -> Case:
    """Return the case of one or more LoRA files, applied one after the other."""

    def run(world: World) -> Tensor:
        model = world.model
        for name in names:
            (model,) = world.call(
                "LoraLoaderModelOnly", model=model, lora_name=f"{name}.safetensors", strength_model=0.8
            )
        return world.ksampler(model)

    return run


def scheduled_lora(world: World) -> Tensor:
    """Sample with a LoRA by hooks, with keyframes of its strength, on one of two masked texts."""
    keys = None
    for start, strength in ((0.0, 0.2), (0.5, 1.0)):
        (keys,) = world.call(
            "CreateHookKeyframe", strength_mult=strength, start_percent=start, prev_hook_kf=keys
        )
    (hooks,) = world.call("SetHookKeyframes", hooks=lora_hook(world), hook_kf=keys)
    common = {"strength": 1.0, "set_cond_area": "default"}
    (first,) = world.call(
        "ConditioningSetProperties", cond_NEW=world.text(1), mask=world.mask(), hooks=hooks, **common
    )
    (both,) = world.call("ConditioningSetDefaultCombine", cond=first, cond_DEFAULT=world.text(3))
    return world.ksampler(positive=both)


def merged_the_other_way(world: World) -> Tensor:
    """Merge with the plain model first: the result is a plain model without temporal layers."""
    (model,) = world.call("ModelMergeSimple", model1=world.other, model2=world.model, ratio=0.4)
    return world.ksampler(model)


def saved_and_loaded(world: World) -> Tensor:
    """Save a merge with ModelSave and load it with the loader of its kind."""
    (merge,) = world.call("ModelMergeSimple", model1=world.model, model2=world.other, ratio=0.4)
    return world.ksampler(reloaded(world, merge))


def reloaded(world: World, model: Any) -> Any:
    """Return a MODEL after ModelSave and the host's loader, or ours for ours; without an AppearNet that it had."""
    from microcinema_core.adapter import load_unet

    before = set(world.models.rglob("*.safetensors"))
    world.call("ModelSave", model=model, filename_prefix="saved")
    (path,) = set(world.models.rglob("*.safetensors")) - before
    try:
        if world.model is not world.stock:
            return load_unet(path)
        import comfy.sd

        return world.as_stock(comfy.sd.load_diffusion_model(str(path)))
    finally:
        path.unlink()


def cached(node: str) -> Case:
    """Return the case of a cache that skips steps with small changes, with enough steps to skip some."""

    def run(world: World) -> Tensor:
        options = {"reuse_threshold": 1.0, "start_percent": 0.1, "end_percent": 0.95, "verbose": False}
        return world.ksampler(world.call(node, model=world.model, **options)[0], steps=8)

    return run


def windows(world: World) -> Tensor:
    """Sample with context windows over the frames.

    Raises:
        NoInputError: a host whose windows do not work over a batch, which our MODELs refuse in a sentence.
    """
    import comfy.model_base

    if not hasattr(comfy.model_base.BaseModel, "resize_cond_for_context_window"):
        raise NoInputError(
            "this host's windows do not work over the frames of a batch, and a MicroCinema MODEL says so"
        )
    node = world.nodes["ContextWindowsManual"]
    lengths = {"context_length": 3, "context_overlap": 1, "context_stride": 1, "dim": 0}
    options = {
        "context_schedule": "standard_static",
        "closed_loop": False,
        "fuse_method": "pyramid",
        **lengths,
    }
    newer = {"freenoise": False} if "freenoise" in node.INPUT_TYPES().get("required", {}) else {}
    (model,) = world.call("ContextWindowsManual", model=world.model, **options, **newer)
    return world.ksampler(model, steps=STEPS, latent_image=world.latent(STEPS + 1), cfg=1.0)


def compiled(world: World) -> Tensor:
    """Sample with TorchCompileModel's default backend; this needs a C++ compiler."""
    return world.ksampler(world.call("TorchCompileModel", model=world.model, backend="inductor")[0])


def picture_prompts(world: World) -> Any:
    """Patch a MODEL as ComfyUI_IPAdapter_plus does: add attention to picture tokens to every attn2.

    The replacements read cond_or_uncond, sigmas, block, transformer_index, n_heads and original_shape from the host's
    options, and mask the picture's part over the frame.
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
    """Return (block, id) of every transformer in the order in which the U-Net runs them."""
    names = [name for name, _ in world.stock.model.diffusion_model.named_modules()]
    found = [name.split(".") for name in names if name.endswith("transformer_blocks.0.attn2")]
    order = {"input_blocks": "input", "middle_block": "middle", "output_blocks": "output"}
    return [(order[part[0]], 0 if part[0] == "middle_block" else int(part[1])) for part in found]


class _PicturePrompt:
    """A replacement of one attention: text attention plus masked attention to four picture tokens."""

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
    """Patch a MODEL as SEG does: blur the queries of the middle block's self-attention over the frame."""
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
    """Set every attention hook at once: inputs, outputs, replacements, the middle block."""
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
    """Set every hook around a block, and a wrapper around the whole network."""
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
    """Set a wrapper of the U-Net's call, as caches and samplers of packs do, and CFG functions."""
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
