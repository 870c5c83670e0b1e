"""Well-known combinations of nodes, in addition to the single nodes."""

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
    """Yield (name, case) for all other cases of this file, and for other packs' patches."""
    yield from CASES.items()
    for name in ("picture_prompts", "smoothed_energy", "attention_hooks", "block_hooks", "function_wrapper"):
        yield f"by hand: {name.replace('_', ' ')}", _patched(getattr(patches, name))
    if compile_too:
        yield "TorchCompileModel, inductor", patches.compiled


def _patched(make: Callable[[World], Any]) -> Case:
    return lambda world: world.ksampler(make(world))


def _ksampler(**changes: Any) -> Case:
    return lambda world: world.ksampler(**changes)


def _discrete(sampling: str) -> Case:
    """Return the case of ModelSamplingDiscrete with another `sampling` than in the node's own row."""
    return lambda world: world.ksampler(
        world.call("ModelSamplingDiscrete", model=world.model, sampling=sampling, zsnr=False)[0],
        sampler_name="lcm" if sampling == "lcm" else "euler",
    )


def no_guidance(world: World) -> Tensor:
    """Sample without guidance (cfg 1)."""
    return world.ksampler(cfg=1.0)


def two_halves(world: World) -> Tensor:
    """Sample with KSamplerAdvanced in two halves; the second continues the first."""
    settings = {
        "noise_seed": SEED,
        "steps": STEPS,
        "cfg": CFG,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
    }
    common = {"model": world.model, "positive": world.text(1), "negative": world.text(2), **settings}
    first = {
        "add_noise": "enable",
        "start_at_step": 0,
        "end_at_step": 2,
        "return_with_leftover_noise": "enable",
    }
    last = {
        "add_noise": "disable",
        "start_at_step": 2,
        "end_at_step": 10000,
        "return_with_leftover_noise": "disable",
    }
    (half,) = world.call("KSamplerAdvanced", latent_image=world.latent(), **first, **common)
    return world.call("KSamplerAdvanced", latent_image=half, **last, **common)[0]["samples"]


def from_pictures(world: World) -> Tensor:
    """Sample from latents of pictures, denoise 0.5."""
    return world.ksampler(latent_image=world.latent(fill=1.0), denoise=0.5)


def masked(world: World) -> Tensor:
    """Sample with a noise mask."""
    return world.ksampler(latent_image={**world.latent(fill=1.0), "noise_mask": world.mask()})


def differential_diffusion(world: World) -> Tensor:
    """Sample with a noise mask and DifferentialDiffusion."""
    (model,) = world.call("DifferentialDiffusion", model=world.model, strength=1.0)
    return world.ksampler(model, latent_image={**world.latent(fill=1.0), "noise_mask": world.mask()})


def odd_size(world: World) -> Tensor:
    """Sample latents with odd height and width; with AppearNet, the centre frame has that size too."""

    def odd(latent: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"samples": latent["samples"][..., :-1, :-1].contiguous()}

    model = world.with_centre_frame(odd(world.latent(1, fill=1.0)))
    return world.ksampler(model, latent_image=odd(world.latent()))


def one_frame(node: str) -> Case:
    """Return the case of a node with its defaults on a batch of one."""

    def run(world: World) -> Tensor:
        inputs = make_inputs(world, world.nodes[node], {})
        return world.ksampler(world.call(node, **inputs)[0], latent_image=world.latent(1))

    return run


def areas(world: World) -> Tensor:
    """Sample with one text for the whole frame, and a stronger one for its upper half."""
    height, width = world.pixels
    area = {"width": width, "height": height // 2, "x": 0, "y": 0, "strength": 1.5}
    (upper,) = world.call("ConditioningSetArea", conditioning=world.text(3), **area)
    return world.ksampler(positive=[*world.text(1), *upper])


def masks(world: World) -> Tensor:
    """Sample with two texts, each with its mask."""
    halves = []
    for seed, mask in ((1, world.mask()), (3, 1 - world.mask())):
        options = {"mask": mask, "strength": 1.0, "set_cond_area": "default"}
        halves += world.call("ConditioningSetMask", conditioning=world.text(seed), **options)[0]
    return world.ksampler(positive=halves)


def texts_in_time(world: World) -> Tensor:
    """Sample with one text for the first half of the run, and another for the second."""
    spans = []
    for seed, start, end in ((1, 0.0, 0.5), (3, 0.5, 1.0)):
        spans += world.call(
            "ConditioningSetTimestepRange", conditioning=world.text(seed), start=start, end=end
        )[0]
    return world.ksampler(positive=spans)


def unequal_texts(world: World) -> Tensor:
    """Sample with texts of unequal length."""
    return world.ksampler(positive=world.text(1, tokens=24), negative=world.text(2, tokens=16))


def controls(world: World) -> Tensor:
    """Sample with two ControlNets in different spans: one has a hint for each frame, the other one hint."""
    texts = (world.text(1), world.text(2))
    for name, start, end, hints in (("control", 0.0, 0.7, 3), ("control_2", 0.3, 1.0, 1)):
        (net,) = world.call("ControlNetLoader", control_net_name=f"{name}.safetensors")
        span = {"strength": 0.7, "start_percent": start, "end_percent": end, "image": world.image(hints)}
        texts = world.call(
            "ControlNetApplyAdvanced", positive=texts[0], negative=texts[1], control_net=net, **span
        )
    return world.ksampler(positive=texts[0], negative=texts[1])


def t2i_adapter(world: World) -> Tensor:
    """Sample with a T2I-Adapter."""
    (net,) = world.call("ControlNetLoader", control_net_name="t2i_adapter.safetensors")
    (positive,) = world.call(
        "ControlNetApply", conditioning=world.text(1), control_net=net, image=world.image(), strength=1.0
    )
    return world.ksampler(positive=positive)


BLOCK_CASES: dict[str, Case] = {"T2I-Adapter": t2i_adapter, "LoRA, kohya keys": patches.lora("kohya")}
"""Cases that depend on the number of blocks."""


CASES: dict[str, Case] = {
    "KSampler without guidance": no_guidance,
    "ModelSamplingDiscrete, lcm": _discrete("lcm"),
    "ModelSamplingDiscrete, v without zsnr": _discrete("v_prediction"),
    "KSamplerAdvanced in two halves": two_halves,
    "pictures as latents, denoise 0.5": from_pictures,
    "noise mask": masked,
    "noise mask with DifferentialDiffusion": differential_diffusion,
    "latents of odd size": odd_size,
    "areas": areas,
    "masks": masks,
    "texts in time": texts_in_time,
    "texts of unequal length": unequal_texts,
    "two ControlNets in spans": controls,
    "LoRA, kohya keys": patches.lora("kohya"),
    "LoRA, diffusers keys": patches.lora("diffusers"),
    "LoCon": patches.lora("locon"),
    "three LoRA files": patches.lora("kohya", "diffusers", "locon"),
    "LoRA by hooks and keyframes": patches.scheduled_lora,
    "merge into a plain model": patches.merged_the_other_way,
    "merge, ModelSave, load": patches.saved_and_loaded,
    "EasyCache, 8 steps": patches.cached("EasyCache"),
    "LazyCache, 8 steps": patches.cached("LazyCache"),
    "context windows over frames": patches.windows,
}
