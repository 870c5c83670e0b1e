"""Training configs: TOML -> frozen dataclasses. Every table and key is known, or the error names the nearest one."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

from ..data.paths import home_folder

T = TypeVar("T")
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

    `wandb` names a Weights & Biases project to write the figures to as well.
    """

    every: int = 20
    checkpoint_minutes: float = 10.0
    checkpoint_steps: int = 0
    keep: int = 2
    sheet_minutes: float = 10.0
    export_minutes: float = 20.0
    wandb: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """One run. `model` and `loss` are the stage's own tables, which it parses into its own dataclasses."""

    stage: str
    name: str
    optim: OptimTable
    data: DataTable = DataTable()
    log: LogTable = LogTable()
    seed: int = 0
    precision: str = "bf16"
    threads: int = 0
    init_from: str = ""
    export_to: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; it is one of {', '.join(PRECISIONS)}")

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


def from_table(cls: type[T], table: dict[str, Any], where: str) -> T:
    """A dataclass from a TOML table; ValueError names an unknown or missing key and the nearest known one."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it knows {', '.join(fields)}"
            raise ValueError(f"{where} has no key {key!r}{hint}")
    missing = [
        name
        for name, f in fields.items()
        if name not in table and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


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
