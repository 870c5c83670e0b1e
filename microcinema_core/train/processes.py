"""The processes of a run, by accelerate: one where nothing launched more, else one a GPU (DDP or FSDP)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .config import TrainConfig
from .draws import Draws
from .stage import Batch, Stage

AUTOCAST = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}


class Objective(nn.Module):
    """A stage's loss as one module, so that whatever wraps it sees all that is trained, and every forward pass."""

    def __init__(self, stage: Stage, precision: str) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(stage.modules))
        self.stage = stage
        self.autocast = AUTOCAST.get(precision)

    def forward(self, batch: Batch, draws: Draws) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and scalars to log."""
        if self.autocast is None:
            return self.stage.loss(batch, draws)
        with torch.autocast(draws.device.type, self.autocast):
            return self.stage.loss(batch, draws)


class Processes:
    """This process among those of the run."""

    def __init__(self, config: TrainConfig) -> None:
        # Precision is the config's, and the loop's own affair: a launcher's default must not change it.
        # Without a GPU it must be told so, or it takes several processes for one each.
        gpu = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
        self.accelerator = Accelerator(cpu=not gpu, mixed_precision="no")
        self.precision = config.precision

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

    def wrap(self, stage: Stage) -> nn.Module:
        """The stage's loss, its gradients averaged over the processes. Call it when what is frozen is frozen."""
        objective = Objective(stage, self.precision)
        return objective if self.world == 1 else self.accelerator.prepare_model(objective)

    def draws(self, generator: torch.Generator) -> Draws:
        return Draws(generator, self.rank, self.world, self.device)

    def put(self, batch: Batch) -> Batch:
        """A batch on this process's device."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def without_exchange(self, objective: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within this context gradients stay with their process: all but the last batch of a step."""
        return contextlib.nullcontext() if self.world == 1 else self.accelerator.no_sync(objective)

    def mean(self, value: Tensor) -> Tensor:
        """Over the processes."""
        return value if self.world == 1 else self.accelerator.reduce(value, reduction="mean")

    def agree(self, elapsed: float, stop: bool) -> tuple[float, bool]:
        """The first process's clock, and whether anyone was told to stop: what all decide by must be the same."""
        if self.world == 1:
            return elapsed, stop
        told = torch.tensor([elapsed if self.main else 0.0, float(stop)], device=self.device)
        clock, stops = self.accelerator.reduce(told, reduction="sum").tolist()
        return clock, stops > 0

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()
