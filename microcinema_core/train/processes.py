"""The processes of a run, by accelerate: one where nothing launched more, else one a GPU."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from .config import TrainConfig
from .fsdp import shard, whole
from .shared_random import SharedRandom
from .stage import Batch, Stage

AUTOCAST = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}


class Objective(nn.Module):
    """A stage's loss as one module, so that whatever wraps it sees all that is trained, and every forward pass."""

    def __init__(self, stage: Stage, precision: str) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(stage.modules))
        self.stage = stage
        self.autocast = AUTOCAST.get(precision)

    def forward(self, batch: Batch, draws: SharedRandom) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and scalars to log."""
        if self.autocast is None:
            return self.stage.loss(batch, draws)
        with torch.autocast(draws.device.type, self.autocast):
            return self.stage.loss(batch, draws)


class Processes:
    """This process among those of the run. sharded: each keeps a share of the weights (FSDP), else all (DDP)."""

    def __init__(self, config: TrainConfig) -> None:
        _refuse_plugins()
        from accelerate import Accelerator

        # Precision is the config's, and the loop's own affair: a launcher's default must not change it.
        # Without a GPU it must be told so, or it takes several processes for one each.
        gpu = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
        self.accelerator = Accelerator(cpu=not gpu, mixed_precision="no")
        self.precision = config.precision
        self.sharded = config.sharded and self.world > 1

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def world(self) -> int:
        return self.accelerator.num_processes

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def main(self) -> bool:
        """Whether this process writes files."""
        return self.accelerator.is_main_process

    def objective(self, stage: Stage) -> Objective:
        """The stage's loss; call it before anyone takes hold of the parameters, which may be split by it."""
        objective = Objective(stage, self.precision)
        if self.sharded:
            shard(objective, self.device, self.world)
        return objective

    def wrap(self, objective: Objective) -> nn.Module:
        """Its gradients averaged over the processes. Call it when what is frozen is frozen."""
        plain = self.world == 1 or self.sharded
        return objective if plain else self.accelerator.prepare_model(objective)

    @contextlib.contextmanager
    def joined(self, objective: nn.Module) -> Iterator[None]:
        """Within this context the networks can be called by themselves, by all processes together."""
        if not isinstance(objective, FSDPModule):
            yield
            return
        objective.unshard()
        try:
            yield
        finally:
            objective.reshard()

    def draws(self, generator: torch.Generator) -> SharedRandom:
        return SharedRandom(generator, self.rank, self.world, self.device)

    def put(self, batch: Batch) -> Batch:
        """A batch on this process's device."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def without_exchange(self, objective: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within this context gradients stay with their process: all but the last batch of a step."""
        together = self.world == 1 or self.sharded  # whole gradients are what shares are to save
        return contextlib.nullcontext() if together else self.accelerator.no_sync(objective)

    def mean(self, value: Tensor) -> Tensor:
        """Over the processes."""
        return value if self.world == 1 else self.accelerator.reduce(value, reduction="mean")

    def norm(self, norm: Tensor) -> Tensor:
        """Of all gradients, from the norm of those that lie here."""
        return self.accelerator.reduce(norm.square(), reduction="sum").sqrt() if self.sharded else norm

    def kept(self, share: Tensor, like: Tensor) -> Tensor:
        """A whole tensor of which this process has a share, in the first process; elsewhere it is let go at once."""
        if not self.sharded:
            return share
        joined = whole(share, like)
        return joined.cpu() if self.main else joined.new_empty(0)

    def agree(self, elapsed: float, stop: bool) -> tuple[float, bool]:
        """The first process's clock, and whether anyone was told to stop: what all decide by must be the same."""
        if self.world == 1:
            return elapsed, stop
        told = torch.tensor([elapsed if self.main else 0.0, float(stop)], device=self.device)
        clock, stops = self.accelerator.reduce(told, reduction="sum").tolist()
        return clock, stops > 0

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()


def leave(code: int) -> NoReturn:
    """End this process with an exit code; all that it writes must be written and closed.

    Among several, Python's own ending is left out. gloo's threads live as long as any process group, which torch's
    caches of split tensors hold to the end, and one that still lets go of a tensor while the interpreter ends brings
    the process down ("terminate called without an active exception").
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if torch.distributed.is_initialized():
        os._exit(code)
    sys.exit(code)


def _refuse_plugins() -> None:
    """ValueError where accelerate was told to take over what the loop does itself."""
    for name, words in (
        ("FSDP", "set `sharded = true` in the config"),
        ("DEEPSPEED", "use DDP or `sharded = true`"),
    ):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true":
            raise ValueError(
                f"accelerate is set to use {name}, which this trainer does not take from it: {words}, and launch with "
                "--multi_gpu"
            )
