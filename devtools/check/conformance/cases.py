"""Combinations that people use by name, beside the single nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from . import patches
from .compare import Case
from .inputs import make_inputs
from .world import CFG, SEED, STEPS, World


def sampler_cases() -> Iterator[tuple[str, Case]]:
    """Yield (name, case) for every sampler and scheduler of KSampler."""
    import comfy.samplers

    for name in comfy.samplers.KSampler.SAMPLERS:
        yield f"KSampler, sampler {name}", _ksampler(sampler_name=name)
    for name in comfy.samplers.KSampler.SCHEDULERS:
        yield f"KSampler, scheduler {name}", _ksampler(scheduler=name)


def named_cases(*, compile_too: bool = False) -> Iterator[tuple[str, Case]]:
    """Yield (name, case) for everything else of this file, and for what packs do by hand."""
    yield from CASES.items()
    for name in ("picture_prompts", "smoothed_energy", "attention_hooks", "block_hooks", "function_wrapper"):
        yield f"by hand: {name.replace('_', ' ')}", _patched(getattr(patches, name))
    if compile_too:
        yield "TorchCompileModel, inductor", compiled


def _patched(make: Callable[[World], Any]) -> Case:
    return lambda world: world.ksampler(make(world))


def _ksampler(**changes: Any) -> Case:
    return lambda world: world.ksampler(**changes)


def _discrete(sampling: str) -> Case:
    """ModelSamplingDiscrete with another sampling than the enumerated row's."""
    return lambda world: world.ksampler(
        world.call("ModelSamplingDiscrete", model=world.model, sampling=sampling, zsnr=False)[0],
        sampler_name="lcm" if sampling == "lcm" else "euler",
    )


def no_guidance(world: World) -> Tensor:
    return world.ksampler(cfg=1.0)


def two_halves(world: World) -> Tensor:
    """KSamplerAdvanced twice, the second from where the first stopped."""
    common = {
        "model": world.model,
        "noise_seed": SEED,
        "steps": STEPS,
        "cfg": CFG,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "positive": world.text(1),
        "negative": world.text(2),
    }
    (half,) = world.call(
        "KSamplerAdvanced",
        add_noise="enable",
        latent_image=world.latent(),
        start_at_step=0,
        end_at_step=2,
        return_with_leftover_noise="enable",
        **common,
    )
    return world.call(
        "KSamplerAdvanced",
        add_noise="disable",
        latent_image=half,
        start_at_step=2,
        end_at_step=10000,
        return_with_leftover_noise="disable",
        **common,
    )[0]["samples"]


def from_pictures(world: World) -> Tensor:
    return world.ksampler(latent_image=world.latent(fill=1.0), denoise=0.5)


def masked(world: World) -> Tensor:
    return world.ksampler(latent_image={**world.latent(fill=1.0), "noise_mask": world.mask()})


def masked_by_degrees(world: World) -> Tensor:
    (model,) = world.call("DifferentialDiffusion", model=world.model, strength=1.0)
    return world.ksampler(model, latent_image={**world.latent(fill=1.0), "noise_mask": world.mask()})


def odd_size(world: World) -> Tensor:
    """Latents of odd height and width; with AppearNet a centre frame of that size too."""

    def odd(latent: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"samples": latent["samples"][..., :-1, :-1].contiguous()}

    appeared = world.model is world.appeared
    model = world.with_centre_frame(odd(world.latent(1, fill=1.0))) if appeared else world.model
    return world.ksampler(model, latent_image=odd(world.latent()))


def one_frame(node: str) -> Case:
    """A node, by its own defaults, on a batch of one."""

    def run(world: World) -> Tensor:
        inputs = make_inputs(world, world.nodes[node], {})
        return world.ksampler(world.call(node, **inputs)[0], latent_image=world.latent(1))

    return run


def areas(world: World) -> Tensor:
    """A text for all, and one for the upper part, stronger."""
    height, width = world.pixels
    area = {"width": width, "height": height // 2, "x": 0, "y": 0, "strength": 1.5}
    (upper,) = world.call("ConditioningSetArea", conditioning=world.text(3), **area)
    return world.ksampler(positive=[*world.text(1), *upper])


def masks(world: World) -> Tensor:
    """Two texts, each under its mask."""
    halves = []
    for seed, mask in ((1, world.mask()), (3, 1 - world.mask())):
        options = {"mask": mask, "strength": 1.0, "set_cond_area": "default"}
        halves += world.call("ConditioningSetMask", conditioning=world.text(seed), **options)[0]
    return world.ksampler(positive=halves)


def texts_in_time(world: World) -> Tensor:
    """One text for the first half of the run, another for the second."""
    spans = []
    for seed, start, end in ((1, 0.0, 0.5), (3, 0.5, 1.0)):
        spans += world.call(
            "ConditioningSetTimestepRange", conditioning=world.text(seed), start=start, end=end
        )[0]
    return world.ksampler(positive=spans)


def unequal_texts(world: World) -> Tensor:
    return world.ksampler(positive=world.text(1, tokens=24), negative=world.text(2, tokens=16))


def controls(world: World) -> Tensor:
    """Two ControlNets, one after the other, in different spans of the run; a hint for each frame and one for all."""
    texts = (world.text(1), world.text(2))
    for name, start, end, hints in (("control", 0.0, 0.7, 3), ("control_2", 0.3, 1.0, 1)):
        (net,) = world.call("ControlNetLoader", control_net_name=f"{name}.safetensors")
        span = {"strength": 0.7, "start_percent": start, "end_percent": end, "image": world.image(hints)}
        texts = world.call(
            "ControlNetApplyAdvanced", positive=texts[0], negative=texts[1], control_net=net, **span
        )
    return world.ksampler(positive=texts[0], negative=texts[1])


def t2i_adapter(world: World) -> Tensor:
    (net,) = world.call("ControlNetLoader", control_net_name="t2i_adapter.safetensors")
    (positive,) = world.call(
        "ControlNetApply", conditioning=world.text(1), control_net=net, image=world.image(), strength=1.0
    )
    return world.ksampler(positive=positive)


def lora(*names: str) -> Case:
    """LoRA files, one on the other."""

    def run(world: World) -> Tensor:
        model = world.model
        for name in names:
            (model,) = world.call(
                "LoraLoaderModelOnly", model=model, lora_name=f"{name}.safetensors", strength_model=0.8
            )
        return world.ksampler(model)

    return run


def scheduled_lora(world: World) -> Tensor:
    """A LoRA by hooks, its strength by keyframes, on one of two masked texts."""
    (hooks,) = world.call(
        "CreateHookLora",
        lora_name="kohya.safetensors",
        strength_model=1.0,
        strength_clip=0.0,
        prev_hooks=None,
    )
    keys = None
    for start, strength in ((0.0, 0.2), (0.5, 1.0)):
        (keys,) = world.call(
            "CreateHookKeyframe", strength_mult=strength, start_percent=start, prev_hook_kf=keys
        )
    (hooks,) = world.call("SetHookKeyframes", hooks=hooks, hook_kf=keys)
    common = {"strength": 1.0, "set_cond_area": "default"}
    (first,) = world.call(
        "ConditioningSetProperties", cond_NEW=world.text(1), mask=world.mask(), hooks=hooks, **common
    )
    (both,) = world.call("ConditioningSetDefaultCombine", cond=first, cond_DEFAULT=world.text(3))
    return world.ksampler(positive=both)


def merged_the_other_way(world: World) -> Tensor:
    """ModelMergeSimple with the plain model first: the merge is then a plain model, and takes nothing of time."""
    (model,) = world.call("ModelMergeSimple", model1=world.other, model2=world.model, ratio=0.4)
    return world.ksampler(model)


def saved_and_loaded(world: World) -> Tensor:
    """A merge, written by ModelSave, read again: the host's file by the host, ours by ours."""
    (merge,) = world.call("ModelMergeSimple", model1=world.model, model2=world.other, ratio=0.4)
    return world.ksampler(reloaded(world, merge))


def reloaded(world: World, model: Any) -> Any:
    """Write a MODEL by ModelSave and load the file by the loader of its kind."""
    from microcinema_core.adapter import load_unet

    before = set(world.models.rglob("*.safetensors"))
    world.call("ModelSave", model=model, filename_prefix="saved")
    (path,) = set(world.models.rglob("*.safetensors")) - before
    try:
        if world.model is world.ours:
            return load_unet(path)
        import comfy.sd

        return comfy.sd.load_diffusion_model(str(path))
    finally:
        path.unlink()


def cached(node: str) -> Case:
    """A cache that skips steps where little changes; more steps, so that it finds some."""

    def run(world: World) -> Tensor:
        options = {"reuse_threshold": 1.0, "start_percent": 0.1, "end_percent": 0.95, "verbose": False}
        return world.ksampler(world.call(node, model=world.model, **options)[0], steps=8)

    return run


def windows(world: World) -> Tensor:
    """Context windows over the frames; 0.3.75 needs one frame more than steps."""
    node = world.nodes["ContextWindowsManual"]
    options = {
        "context_length": 3,
        "context_overlap": 1,
        "context_schedule": "standard_static",
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": "pyramid",
        "dim": 0,
    }
    newer = {"freenoise": False} if "freenoise" in node.INPUT_TYPES().get("required", {}) else {}
    (model,) = world.call("ContextWindowsManual", model=world.model, **options, **newer)
    return world.ksampler(model, steps=STEPS, latent_image=world.latent(STEPS + 1), cfg=1.0)


BLOCK_CASES: dict[str, Case] = {"T2I-Adapter": t2i_adapter, "LoRA, kohya keys": lora("kohya")}
"""What counts blocks."""


def compiled(world: World) -> Tensor:
    """TorchCompileModel as it comes; needs a C++ compiler."""
    return world.ksampler(world.call("TorchCompileModel", model=world.model, backend="inductor")[0])


CASES: dict[str, Case] = {
    "KSampler without guidance": no_guidance,
    "ModelSamplingDiscrete, lcm": _discrete("lcm"),
    "ModelSamplingDiscrete, v without zsnr": _discrete("v_prediction"),
    "KSamplerAdvanced in two halves": two_halves,
    "pictures as latents, denoise 0.5": from_pictures,
    "noise mask": masked,
    "noise mask with DifferentialDiffusion": masked_by_degrees,
    "latents of odd size": odd_size,
    "areas": areas,
    "masks": masks,
    "texts in time": texts_in_time,
    "texts of unequal length": unequal_texts,
    "two ControlNets in spans": controls,
    "LoRA, kohya keys": lora("kohya"),
    "LoRA, diffusers keys": lora("diffusers"),
    "LoCon": lora("locon"),
    "three LoRA files": lora("kohya", "diffusers", "locon"),
    "LoRA by hooks and keyframes": scheduled_lora,
    "merge into a plain model": merged_the_other_way,
    "merge, ModelSave, load": saved_and_loaded,
    "EasyCache, 8 steps": cached("EasyCache"),
    "LazyCache, 8 steps": cached("LazyCache"),
    "context windows over frames": windows,
}
