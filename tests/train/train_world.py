"""A tiny stage for tests of the training loop, and runs of it in separate processes."""

from __future__ import annotations

from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from microcinema_core.train import checkpoints as state
from microcinema_core.train import loop
from microcinema_core.train.config import TrainConfig, parse
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.stage import Sheet


class Points:
    """Forty items that are functions of their index."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": torch.linspace(-1, 1, 40)[index].expand(4).clone()}


class Toy:
    """A stage that learns to double its input; its noise comes from the loop's generator."""

    def __init__(self, *, explode_at: int = -1) -> None:
        self.net = nn.ModuleDict({"fast": nn.Linear(4, 4), "slow": nn.Linear(4, 4), "fixed": nn.Linear(4, 4)})
        self.modules: Mapping[str, nn.Module] = {"net": self.net}
        self.dataset = Points()
        self.explode_at, self.calls, self.seen = explode_at, 0, []

    def prepare(self) -> None:
        nn.init.ones_(self.net["slow"].weight)

    def group_of(self, name: str) -> str | None:
        group = name.split(".")[1]
        return None if group == "fixed" else group

    def loss(self, batch: dict[str, Tensor], draws: SharedRandom) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        self.seen.append(batch["x"][:, 0].tolist())
        x = batch["x"] + 0.1 * draws.normal(tuple(batch["x"].shape))
        x = x.to(self.net["fast"].weight.dtype)
        y = self.net["fixed"](self.net["slow"](torch.tanh(self.net["fast"](x))))
        loss = (y.float() - 2 * batch["x"]).square().mean()
        return (loss * float("nan") if self.calls == self.explode_at else loss), {"extra": loss.detach()}

    def to(self, device: torch.device) -> None:
        """Do nothing: the stage has no tensors besides its trained weights and batches."""

    def sheet(self) -> Sheet:
        torch.rand(7)  # the loop must restore the random state afterwards
        return Sheet(torch.zeros(3, 8, 8))

    def export(self, path: Path, parts: dict[str, dict[str, Tensor]]) -> None:
        save_file(parts["net"], path)


class Wide(Toy):
    """A wider toy with a matrix large enough for Muon; it sends a message down a pipe before each loss."""

    def __init__(self, beats: Connection | None = None) -> None:
        super().__init__()
        self.net = nn.ModuleDict(
            {"fast": nn.Linear(4, 64), "slow": nn.Linear(64, 64), "fixed": nn.Linear(64, 4)}
        )
        self.modules = {"net": self.net}
        self.beats = beats

    def loss(self, batch: dict[str, Tensor], draws: SharedRandom) -> tuple[Tensor, dict[str, Tensor]]:
        if self.beats is not None:
            self.beats.send("")
        return super().loss(batch, draws)


def seeded(toy: type[Toy] = Toy, **options: int) -> Toy:
    """Build the toy with the same weights at each call."""
    torch.manual_seed(5)
    return toy(**options)


def config(name: str = "toy", **tables: Any) -> TrainConfig:
    """Return a config of twelve steps; `tables` replaces keys of [optim], or other tables by name."""
    quiet = {"every": 4, "sheet_minutes": 0, "export_minutes": 0, "checkpoint_minutes": 0, "keep": 2}
    others = {key: tables.pop(key) for key in ("data", "log", "precision") if key in tables}
    optim = {"lr": 0.01, "max_steps": 12, "warmup_steps": 3, "groups": {"fast": 1.0, "slow": 0.1}, **tables}
    return parse(
        {
            "stage": "vae",
            "name": name,
            "data": {"batch": 7, "accumulate": 2},
            "optim": optim,
            **others,
            "log": {**quiet, **others.get("log", {})},
        }
    )


def go_on(config: TrainConfig, beats: Connection | None = None) -> None:
    """Train the wide toy to its end, from the newest checkpoint if there is one."""
    torch.set_num_threads(1)
    torch.manual_seed(5)
    found = state.saved_checkpoints(config.run_folder / "checkpoints")
    loop.run(config, stage=Wide(beats), resume=bool(found))
