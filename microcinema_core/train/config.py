"""Training configs: TOML -> frozen dataclasses. What a key may be is said here; tables.py has the errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

from ..files.paths import home_folder
from .tables import Range, checked, from_table

MANY = math.inf
OPTIMIZERS = ("adamw", "muon", "adamw8bit")
PRECISIONS = ("bf16", "fp32", "bf16-mixed", "fp16-mixed")
"""bf16: weights in it, with float32 masters. The mixed ones: weights in float32, autocast."""


@dataclass(frozen=True)
class DataTable:
    """`folder` is relative to $MICROCINEMA_HOME/data, or absolute; one with a sub-folder per size is one of buckets.

    `test_folder` feeds sheets (none: `folder` does); `batch` is what one process takes at once, `accumulate` how often
    in a step.

    `items` > 0 takes only the first so many of the data set.
    """

    RANGES: ClassVar[dict[str, Range]] = {"batch": (1, MANY), "accumulate": (1, MANY), "items": (0, MANY)}

    folder: str = ""
    test_folder: str = ""
    batch: int = 16
    accumulate: int = 1
    items: int = 0


@dataclass(frozen=True)
class OptimTable:
    """`optimizer` is "adamw", "muon" for the matrices and AdamW for the rest, or "adamw8bit" (bitsandbytes).

    `groups` scales `lr` by the stage's group names, and 0 freezes one: it keeps its values to the bit. A run ends at
    max_steps or max_minutes, the first.

    The rate rises over `warmup_steps` and falls to zero from the share `decay_from` of the budget to its end, `decay`
    "cosine", "linear" or "none". `ema_on = "cpu"` keeps the average off the GPU.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("lr", "weight_decay", "ema"), (0, 1)),
        **dict.fromkeys(("clip", "warmup_steps", "max_steps", "max_minutes"), (0, MANY)),
        "decay_from": (0, 0.99),
    }

    lr: float
    optimizer: str = "adamw"
    groups: dict[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup_steps: int = 100
    decay: str = "cosine"
    decay_from: float = 0.0
    ema: float = 0.999
    ema_on: str = ""
    max_steps: int = 0
    max_minutes: float = 0.0

    def __post_init__(self) -> None:
        for group, factor in self.groups.items():
            checked(factor, float, f"optim.groups.{group}", (0, MANY))
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optim.optimizer is {self.optimizer!r}; it is one of {', '.join(OPTIMIZERS)}")
        if self.ema_on not in ("", "cpu"):
            raise ValueError(f'optim.ema_on is {self.ema_on!r}; it is "" (beside the weights) or "cpu"')
        if self.decay not in ("cosine", "linear", "none"):
            raise ValueError(f"optim.decay is {self.decay!r}; it is one of cosine, linear, none")
        if not self.max_steps and not self.max_minutes:
            raise ValueError(
                "optim.max_steps and optim.max_minutes are both 0; a run needs one of them as its budget"
            )


@dataclass(frozen=True)
class LogTable:
    """How often (steps for statistics, minutes and steps for checkpoints, minutes for the rest); 0 turns one off.

    That is not so of `every`. `keep` is how many checkpoints stay. `wandb` names a Weights & Biases
    project to write the figures to as well.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("every", "keep"), (1, MANY)),
        **dict.fromkeys(
            ("checkpoint_minutes", "checkpoint_steps", "sheet_minutes", "export_minutes"), (0, MANY)
        ),
    }

    every: int = 20
    checkpoint_minutes: float = 10.0
    checkpoint_steps: int = 0
    keep: int = 2
    sheet_minutes: float = 10.0
    export_minutes: float = 20.0
    wandb: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """One run. `model` and `loss` are the stage's own tables, which it parses into its own dataclasses.

    sharded: of several processes each keeps a share of the weights and all that belongs to them (FSDP).
    """

    RANGES: ClassVar[dict[str, Range]] = {"seed": (0, MANY), "threads": (0, MANY)}

    stage: str
    name: str
    optim: OptimTable
    data: DataTable = DataTable()
    log: LogTable = LogTable()
    seed: int = 0
    precision: str = "bf16"
    sharded: bool = False
    threads: int = 0
    init_from: str = ""
    export_to: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(
                f"name is {self.name!r}; a plain name was expected, which the run's folder will have"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; it is one of {', '.join(PRECISIONS)}")
        if self.sharded and (self.optim.optimizer != "adamw" or self.precision == "fp16-mixed"):
            raise ValueError(
                f"sharded is true with optim.optimizer {self.optim.optimizer!r} and precision {self.precision!r}; "
                'shares need "adamw" (the others see whole matrices or blocks), and "bf16", "bf16-mixed" or "fp32"'
            )

    @property
    def run_folder(self) -> Path:
        return home_folder() / "runs" / self.name

    @property
    def data_folder(self) -> Path:
        return home_folder() / "data" / self.data.folder

    @property
    def test_folder(self) -> Path:
        return home_folder() / "data" / self.data.test_folder

    @property
    def export_path(self) -> Path:
        return home_folder() / (self.export_to or f"runs/{self.name}/{self.name}.safetensors")


def parse(table: dict[str, Any]) -> TrainConfig:
    """The whole config from parsed TOML."""
    parts: dict[str, Any] = dict(table)
    for name, cls in (("data", DataTable), ("optim", OptimTable), ("log", LogTable)):
        if name in parts:
            parts[name] = from_table(cls, parts[name], f"[{name}]")
    return from_table(TrainConfig, parts, "the config")


def load(path: str | Path) -> TrainConfig:
    """The config in a TOML file; ValueError with one sentence on a broken one."""
    try:
        with Path(path).open("rb") as file:
            return parse(tomllib.load(file))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; a TOML file was expected, as those in configs/") from None
