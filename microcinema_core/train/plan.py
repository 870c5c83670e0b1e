"""The plan of a run: config, parameters by learning-rate group, memory, steps per epoch.

Networks are built on the "meta" device, without storage. Activations are the tensors that autograd would keep of one
batch's forward pass.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..networks.layers import CrossAttention, attention
from ..networks.spatial import ResBlock, SpatialTransformer
from .batches import first_bucket
from .config import TrainConfig, from_table, to_table
from .memory import peak_bytes, reset_peak
from .processes import Processes
from .stage import Stage
from .stages import STAGES, Stages, build_stage
from .step import train_step
from .trainer import build, select_trainable
from .video import VideoStage
from .video_config import ModelTable

GIB = 2**30
OPTIMIZER_BYTES = {"adamw": 8.0, "adamw8bit": 2.03, "muon": 4.0}
"""Bytes of optimizer state per trained parameter. Muon's few AdamW parameters, at 8, are not told apart."""


def describe(config: TrainConfig, world: int = 1, stages: Stages = STAGES) -> str:
    """Return the plan as text, for `world` processes; errors as for `build_stage` and `select_trainable`."""
    stage = _without_storage(config, stages)
    trained, group_of = select_trainable(stage, config.optim)
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
    if isinstance(stage, VideoStage):
        lines[-2:-2] = ["", "where weights come from", *_origins(config, stage)]
    parts = memory(config, stage, total, moved)
    lines += [f"  {name:<42}{size / GIB:8.2f}" for name, size in parts.items()]
    lines += [f"  {'together':<42}{sum(parts.values()) / GIB:8.2f}"]
    if isinstance(stage, VideoStage):
        lines += [
            "",
            f"forward pass of a clip: {operations(stage) / 1e12:.3f} TFLOP; training takes 3 times that, "
            "4 times with gradient checkpointing",
        ]
    items, taken = len(stage.dataset), config.data.batch * config.data.accumulate * world
    lines += ["", f"{items} items, {taken} a step: {items / taken:.1f} steps per epoch"]
    if config.optim.max_steps:
        lines[-1] += (
            f"; {config.optim.max_steps} steps are {config.optim.max_steps * taken / items:.2f} epochs"
        )
    return "\n".join(lines)


def _origins(config: TrainConfig, stage: VideoStage) -> list[str]:
    """Return one line for each file that a video stage's weights start from, and one for its new layers."""
    known = [f"  {one.file}: {one.kind}; licence: {one.licence}" for one in stage.sources]
    if stage.start is not None and stage.start.spec.role != "image":
        return [f"  {stage.start.name}: all", *known]
    given = {group for one in stage.sources for group in one.gives} | {"spatial"}
    new = [group for group in ("temporal", "injection") if group not in given]
    lines = [
        f"{line}; gives {', '.join(_with_rate(group, config) for group in one.gives)}"
        for line, one in zip(known, stage.sources, strict=True)
    ]
    return [*lines, *(f"  new: {_with_rate(group, config)}" for group in new)]


def _with_rate(group: str, config: TrainConfig) -> str:
    return f"{group} (rate {config.optim.lr * config.optim.groups.get(group, 1.0):g})"


def memory(config: TrainConfig, stage: Stage, total: int, trained: int) -> dict[str, float]:
    """Return the memory of one process in bytes, by use; on the GPU where there is one.

    The allocator's overhead and convolution workspaces are not included.

    Args:
        config: the run.
        stage: the stage; of a video stage activations are counted too.
        total: number of all parameters.
        trained: number of trained parameters.
    """
    separate, mixed = config.precision == "bf16", config.precision.endswith("-mixed")
    parts: dict[str, float] = {"weights": total * (2 if separate else 4)}
    if separate:
        parts["float32 master weights"] = trained * 4
    if mixed:
        parts["16-bit copies of the weights (autocast)"] = total * 2
    parts["gradients"] = trained * (6 if separate else 4)
    parts["optimizer"] = trained * OPTIMIZER_BYTES[config.optim.optimizer]
    if not config.optim.ema_device:
        parts["EMA"] = trained * 4
    if isinstance(stage, VideoStage):
        plain, recomputed = activations(stage, config)
        again = from_table(ModelTable, config.model, "[model]").gradient_checkpointing
        parts["activations (checkpointed)" if again else "activations"] = recomputed if again else plain
    return parts


def _without_storage(config: TrainConfig, stages: Stages) -> Stage:
    """Return the stage, built on the "meta" device if it is a video stage; other stages are small."""
    kind = stages.get(config.stage)
    if not (isinstance(kind, type) and issubclass(kind, VideoStage)):
        return build_stage(config, stages)
    # Activations are counted without gradient checkpointing, which then is one of the two figures.
    model = replace(from_table(ModelTable, config.model, "[model]"), gradient_checkpointing=False)
    return kind(replace(config, model=to_table(model)), device="meta")


class _Attention(torch.autograd.Function):
    """An attention that saves what a fused kernel saves: q, k, v, output, one number per row and head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Return an empty output in the shape of q, `n tokens (heads d)`."""
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[0], q.shape[1], heads, dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Raise, as nothing is ever differentiated here."""
        raise NotImplementedError


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, **_: Any) -> Tensor:
    return _Attention.apply(q, k, v, heads)


@dataclass
class _SavedTensors:
    """Bytes that autograd saves during a forward pass, counted once per storage.

    Attributes:
        weights: storages of the parameters, which are not counted.
        seen: storages counted so far, kept alive so that their ids stay unique.
        block: the ResBlock or transformer that is running; None outside of blocks.
        bytes_of: bytes saved in each block, and under None outside of blocks.
        inputs: bytes of the blocks' inputs, which gradient checkpointing keeps.
    """

    weights: set[int]
    seen: dict[int, Tensor] = field(default_factory=dict)
    block: nn.Module | None = None
    bytes_of: Counter[nn.Module | None] = field(default_factory=Counter)
    inputs: int = 0

    def pack(self, tensor: Tensor) -> Tensor:
        """Count a tensor that autograd saves, and return it."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights and storage._cdata not in self.seen:
            self.seen[storage._cdata] = tensor
            self.bytes_of[self.block] += storage.nbytes()
        return tensor

    def enter(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Note that a block starts; a forward pre-hook."""
        self.block = block
        self.inputs += inputs[0].untyped_storage().nbytes()

    def leave(self, block: nn.Module, inputs: Any, output: Any) -> None:
        """Note that a block has ended; a forward hook."""
        self.block = None


def operations(stage: VideoStage) -> int:
    """Return the floating-point operations of one clip's forward pass; a multiply-add counts as two."""
    video = stage.video
    for module in (*video.unet.modules(), *video.appearnet.modules()):
        if isinstance(module, CrossAttention):
            module.attend = attention
    for network in (video.unet, video.appearnet):
        network.requires_grad_(False)  # the counter hooks gradients of a leaf in vain
    z_0 = torch.empty((1, *first_bucket(stage.dataset)[0]["mean"].shape), device="meta", dtype=video.dtype)
    text, t = torch.empty(stage.empty_context.shape, device="meta"), torch.empty(1, device="meta")
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        injection = video.injection(stage.appearance(z_0), t, text, 1.0, _vision(stage, 1, video.dtype))
        video.predict(z_0, t, text, injection)
    return counter.get_total_flops()


def activations(stage: VideoStage, config: TrainConfig) -> tuple[int, int]:
    """Return the bytes saved for one batch's backward pass, without and with gradient checkpointing."""
    video = stage.video
    dtype = torch.float32 if config.precision == "fp32" else torch.bfloat16
    networks = (video.unet.to(dtype), video.appearnet.to(dtype))
    item = first_bucket(stage.dataset)[0]["mean"]
    z_0 = torch.empty((config.data.batch, *item.shape), device="meta", dtype=dtype)
    text = torch.empty((config.data.batch, *stage.empty_context.shape[1:]), device="meta", dtype=dtype)
    t = torch.empty(config.data.batch, device="meta")
    with ExitStack() as stack:
        kept = _SavedTensors(
            {p.untyped_storage()._cdata for network in networks for p in network.parameters()}
        )
        for module in (m for network in networks for m in network.modules()):
            if isinstance(module, CrossAttention):
                module.attend = _attend
            if isinstance(module, ResBlock | SpatialTransformer):
                stack.callback(module.register_forward_pre_hook(kept.enter).remove)
                stack.callback(module.register_forward_hook(kept.leave).remove)
        stack.enter_context(torch.device("meta"))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor))
        appearance = stage.appearance(z_0)
        injection = video.injection(appearance, t, text, 1.0, _vision(stage, config.data.batch, dtype))
        output = video.predict(z_0, t, text, injection)
        rearrange(output, "b f c h w -> (b f c h w)").float().square().mean()
    outside = kept.bytes_of.pop(None, 0)
    blocks = list(kept.bytes_of.values())
    return outside + sum(blocks), outside + kept.inputs + max(blocks, default=0)


def _vision(stage: VideoStage, clips: int, dtype: torch.dtype) -> Tensor | None:
    """Return features of pictures without storage, for weights that look at them through CLIP vision."""
    if not stage.looks:
        return None
    return torch.empty((clips, *stage.video.grey.shape), device="meta", dtype=dtype)


def measure(config: TrainConfig, steps: int, stages: Stages = STAGES) -> str:
    """Run real steps and return their times and peak memory as text; nothing is written.

    The first step is slower, because it allocates the optimizer's state. Processor time adds up all threads; on a busy
    CPU it is the better measure.
    """
    started = time.monotonic()
    processes = Processes(config)
    stage = build_stage(config, stages)
    stage.prepare()
    trainer = build(config, stage, processes)
    trainer.frozen.clear()  # only checkpoints and exports need these, and nothing is written here
    loading = peak_bytes()
    reset_peak()
    lines = [f"loaded in {time.monotonic() - started:.0f} s, peak {loading / GIB:.2f} GiB"]
    for step in range(steps):
        started, worked = time.monotonic(), time.process_time()
        loss = float(train_step(trainer)["loss"])
        seconds, worked = time.monotonic() - started, time.process_time() - worked
        took = f"{seconds:.1f} s, {worked:.1f} s of processor time"
        lines.append(f"step {step + 1}: {took}, loss {loss:.4f}, peak so far {peak_bytes() / GIB:.2f} GiB")
    processes.wait()
    where = (
        processes.device.type if processes.device.type != "cpu" else f"cpu, {torch.get_num_threads()} threads"
    )
    return "\n".join([f"measured on {where}:", *(f"  {line}" for line in lines)])
