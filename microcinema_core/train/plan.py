"""What a run will be, said before anything slow: config, parameters by group, memory, steps per epoch.

Networks are built without storage. Activations are counted: what autograd would keep of one batch's forward pass.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..networks.layers import CrossAttention, attention
from ..networks.spatial import ResBlock, SpatialTransformer
from .base import BASE
from .config import TrainConfig
from .networks import ModelTable
from .sets import alike
from .stage import Stage
from .stages import STAGES, Stages, build_stage
from .tables import from_table
from .trainer import choose
from .tsr import TSR
from .video import VideoStage, build_video_stage

GIB = 2**30
STATE = {"adamw": 8.0, "adamw8bit": 2.03, "muon": 4.0}
"""Bytes an optimizer keeps for each trained parameter; Muon's few other parameters take AdamW's 8."""


def describe(config: TrainConfig, world: int = 1, stages: Stages = STAGES) -> str:
    """The plan as text, for so many processes."""
    stage = _without_storage(config, stages)
    trained, group_of = choose(stage, config.optim)
    counts = Counter[str]()
    for name, parameter in trained.items():
        counts[group_of[name]] += parameter.numel()
    total = sum(p.numel() for module in stage.modules.values() for p in module.parameters())
    moved = sum(counts.values())
    lines = [json.dumps(dataclasses.asdict(config), indent=1), "", "parameters"]
    lines += [
        f"  {group:<12}{count / 1e6:10.2f} M   rate {config.optim.lr * config.optim.groups.get(group, 1.0):g}"
        for group, count in sorted(counts.items())
    ]
    lines += [
        f"  {'frozen':<12}{(total - moved) / 1e6:10.2f} M",
        "",
        "memory of each process, GiB (2^30 bytes)",
    ]
    parts = memory(config, stage, total, moved)
    lines += [f"  {name:<42}{size / GIB:8.2f}" for name, size in parts.items()]
    lines += [f"  {'together':<42}{sum(parts.values()) / GIB:8.2f}"]
    if isinstance(stage, VideoStage):
        lines += [
            "",
            f"one clip forward: {operations(stage) / 1e12:.3f} TFLOP; a step is 3 of it, 4 if recomputed",
        ]
    items, taken = len(stage.dataset), config.data.batch * config.data.accumulate * world
    lines += ["", f"{items} items, {taken} a step: {items / taken:.1f} steps per epoch"]
    if config.optim.max_steps:
        lines[-1] += (
            f"; {config.optim.max_steps} steps are {config.optim.max_steps * taken / items:.2f} epochs"
        )
    return "\n".join(lines)


def memory(config: TrainConfig, stage: Stage, total: int, trained: int) -> dict[str, float]:
    """Bytes by use, on the GPU where there is one. What the allocator and convolutions want besides is not in it."""
    separate, mixed = config.precision == "bf16", config.precision.endswith("-mixed")
    parts: dict[str, float] = {"weights": total * (2 if separate else 4)}
    if separate:
        parts["float32 masters"] = trained * 4
    if mixed:
        parts["16-bit copies of the weights (autocast)"] = total * 2
    parts["gradients"] = trained * (6 if separate else 4)
    parts["optimizer"] = trained * STATE[config.optim.optimizer]
    if not config.optim.ema_on:
        parts["average (EMA)"] = trained * 4
    if isinstance(stage, VideoStage):
        plain, recomputed = activations(stage, config)
        again = stage.model.recompute or bool(config.model.get("recompute"))
        parts["activations, recomputed" if again else "activations"] = recomputed if again else plain
    return parts


def _without_storage(config: TrainConfig, stages: Stages) -> Stage:
    """The stage with its networks on `meta`; the small ones of vae and image as they are."""
    if config.stage not in ("base", "tsr"):
        return build_stage(config, stages)
    from_table(
        ModelTable, config.model, "[model]"
    )  # said before a key of it is replaced: what is wrong in it
    plain = replace(config, model={**config.model, "recompute": False})
    return cast(Stage, build_video_stage(BASE if config.stage == "base" else TSR, plain, "meta"))


class _Attention(torch.autograd.Function):
    """Keeps what a fused attention keeps: q, k, v, the answer and one number a row."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[0], q.shape[1], heads, dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    return _Attention.apply(q, k, v, heads)


@dataclass
class _Kept:
    """Storages that autograd keeps, outside blocks and by block, and the blocks' inputs."""

    weights: set[int]
    seen: dict[int, Tensor] = field(default_factory=dict)
    block: nn.Module | None = None
    bytes_of: Counter[nn.Module | None] = field(default_factory=Counter)
    inputs: int = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights and storage._cdata not in self.seen:
            self.seen[storage._cdata] = tensor  # alive, so that its number stays its own
            self.bytes_of[self.block] += storage.nbytes()
        return tensor

    def enter(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.block = block
        self.inputs += inputs[0].untyped_storage().nbytes()

    def leave(self, block: nn.Module, inputs: Any, output: Any) -> None:
        self.block = None


def operations(stage: VideoStage) -> int:
    """Floating point operations of one clip's forward pass, two a multiplication and addition."""
    video = stage.networks.video
    for module in (*video.unet.modules(), *video.appearnet.modules()):
        if isinstance(module, CrossAttention):
            module.attend = attention
    z_0 = torch.empty((1, *alike(stage.dataset)[0]["mean"].shape), device="meta", dtype=video.dtype)
    text, t = torch.empty(stage.empty.shape, device="meta"), torch.empty(1, device="meta")
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        injection = video.injection(stage.role.appearance(z_0), t, text, 1.0)
        video.predict(z_0, t, text, injection)
    return counter.get_total_flops()


def activations(stage: VideoStage, config: TrainConfig) -> tuple[int, int]:
    """Bytes that one batch keeps for its backward pass: as it is, and with `model.recompute`."""
    video = stage.networks.video
    dtype = torch.float32 if config.precision == "fp32" else torch.bfloat16
    networks = (video.unet.to(dtype), video.appearnet.to(dtype))
    item = alike(stage.dataset)[0]["mean"]
    z_0 = torch.empty((config.data.batch, *item.shape), device="meta", dtype=dtype)
    text = torch.empty((config.data.batch, *stage.empty.shape[1:]), device="meta", dtype=dtype)
    t = torch.empty(config.data.batch, device="meta")
    with ExitStack() as stack:
        kept = _Kept({p.untyped_storage()._cdata for network in networks for p in network.parameters()})
        for module in (m for network in networks for m in network.modules()):
            if isinstance(module, CrossAttention):
                module.attend = _attend
            if isinstance(module, ResBlock | SpatialTransformer):
                stack.callback(module.register_forward_pre_hook(kept.enter).remove)
                stack.callback(module.register_forward_hook(kept.leave).remove)
        stack.enter_context(torch.device("meta"))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor))
        appearance = stage.role.appearance(z_0)
        injection = video.injection(appearance, t, text, 1.0)
        answer = video.predict(z_0, t, text, injection)
        rearrange(answer, "b f c h w -> (b f c h w)").float().square().mean()
    outside = kept.bytes_of.pop(None, 0)
    blocks = list(kept.bytes_of.values())
    return outside + sum(blocks), outside + kept.inputs + max(blocks, default=0)
