"""The processes of a run, by accelerate: one, or as many as were launched, usually one per GPU."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .fsdp import full_tensor, require_fsdp, shard
from .shared_random import SharedRandom
from .stage import Batch, Stage

AUTOCAST = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}


RANK_VARIABLES = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Where launchers tell a process its rank; accelerate reads the same."""


def launched_rank() -> int:
    """Return the rank that the launcher gave this process, before it has joined the others; 0 without a launcher."""
    told = [os.environ[name] for name in RANK_VARIABLES if os.environ.get(name, "").isdecimal()]
    return int(told[0]) if told else 0


class Objective(nn.Module):
    """A stage's loss as one module, so that DDP and FSDP see all parameters and every forward pass."""

    def __init__(self, stage: Stage, precision: str) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(stage.modules))
        self.stage = stage
        self.autocast = AUTOCAST.get(precision)

    def forward(self, batch: Batch, random: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of a batch and scalars to log, under autocast where the precision is mixed."""
        if self.autocast is None:
            return self.stage.loss(batch, random)
        with torch.autocast(random.device.type, self.autocast):
            return self.stage.loss(batch, random)


class Processes:
    """This process among those of the run.

    Attributes:
        accelerator: accelerate's, which does the communication.
        precision: the config's precision.
        sharded: whether each process keeps a shard of the weights (FSDP) rather than all of them (DDP).

    Raises:
        ValueError: accelerate was configured to use its own FSDP or DeepSpeed, or this torch has no FSDP for
            `fsdp = true`.
    """

    def __init__(self, config: TrainConfig) -> None:
        _refuse_plugins()
        if config.fsdp:
            require_fsdp()
        from accelerate import Accelerator

        # The loop handles precision itself, so the launcher's default must not change it. Without a GPU accelerate
        # needs cpu=True, or it does not join several processes.
        gpu = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
        self.accelerator = Accelerator(cpu=not gpu, mixed_precision="no")
        self.precision = config.precision
        self.sharded = config.fsdp and self.world > 1

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.accelerator.num_processes

    @property
    def rank(self) -> int:
        """Rank of this process, from 0."""
        return self.accelerator.process_index

    @property
    def main(self) -> bool:
        """Whether this is the first process, which alone writes files."""
        return self.accelerator.is_main_process

    def objective(self, stage: Stage) -> Objective:
        """Return the stage's loss as a module; FSDP replaces parameters, so take references to them later."""
        objective = Objective(stage, self.precision)
        if self.sharded:
            shard(objective, self.device, self.world)
        return objective

    def wrap(self, objective: Objective) -> nn.Module:
        """Return the objective with gradients averaged across ranks (DDP); call it after freezing parameters."""
        plain = self.world == 1 or self.sharded
        return objective if plain else self.accelerator.prepare_model(objective)

    @contextlib.contextmanager
    def unsharded(self, objective: nn.Module) -> Iterator[None]:
        """Gather FSDP shards within this context, so that all processes can call the networks directly."""
        if not self.sharded:
            yield
            return
        module: Any = objective
        module.unshard()
        try:
            yield
        finally:
            module.reshard()

    def shared_random(self, generator: torch.Generator) -> SharedRandom:
        """Return this process's view of a generator that is in the same state in all processes."""
        return SharedRandom(generator, self.rank, self.world, self.device)

    def to_device(self, batch: Batch) -> Batch:
        """Return a batch on this process's device."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def without_exchange(self, objective: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Return a context without gradient synchronisation, for all but the last batch of a step."""
        together = self.world == 1 or self.sharded  # with FSDP, unsynchronised gradients would be full ones
        return contextlib.nullcontext() if together else self.accelerator.no_sync(objective)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor across ranks."""
        return value if self.world == 1 else self.accelerator.reduce(value, reduction="mean")

    def norm(self, norm: Tensor) -> Tensor:
        """Return the norm of full gradients, given the norm of this process's shards."""
        return self.accelerator.reduce(norm.square(), reduction="sum").sqrt() if self.sharded else norm

    def gather_full(self, share: Tensor, like: Tensor) -> Tensor:
        """Return the full tensor of a shard, on the CPU of the first process; an empty tensor in the others."""
        if not self.sharded:
            return share
        joined = full_tensor(share, like)
        return joined.cpu() if self.main else joined.new_empty(0)

    def agree_on_stop(self, elapsed: float, stop: bool) -> tuple[float, bool]:
        """Return the first process's elapsed seconds and whether any is to stop, so that all decide alike."""
        if self.world == 1:
            return elapsed, stop
        told = torch.tensor([elapsed if self.main else 0.0, float(stop)], device=self.device)
        clock, stops = self.accelerator.reduce(told, reduction="sum").tolist()
        return clock, stops > 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.accelerator.wait_for_everyone()


def exit_process(code: int) -> NoReturn:
    """Exit with a code; all files must be written and closed by now.

    One of several processes skips Python's own shutdown. torch's caches of sharded tensors keep the process group, and
    with it gloo's threads, alive to the end. A thread that frees a tensor during the shutdown aborts the process
    ("terminate called without an active exception").
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if torch.distributed.is_initialized():
        os._exit(code)
    sys.exit(code)


def _refuse_plugins() -> None:
    """Refuse accelerate's own FSDP and DeepSpeed plugins.

    Raises:
        ValueError: one of them is turned on.
    """
    for name, words in (
        ("FSDP", "set `fsdp = true` in the config"),
        ("DEEPSPEED", "use DDP or `fsdp = true`"),
    ):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise ValueError(
                f"accelerate is set to use {name}, which this trainer does not take from it: {words}, and launch with "
                "--multi_gpu"
            )
