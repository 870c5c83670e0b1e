"""Training configs: TOML tables as frozen dataclasses, with one-sentence errors."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

from ..files.paths import home_folder
from ..messages import one_line, reason
from ..model_spec import SamplerDefaults
from ..moved import address_of_config
from ..values import Range, checked

T = TypeVar("T")

UNLIMITED = math.inf
"""No limit; the number itself must be finite."""
LARGEST_SEED = 10**13
"""The order of the data multiplies the seed, and torch's seeds have 64 bits."""
LARGEST_COUNT = 2**31 - 1
"""Largest number of steps, items or threads: larger ones are slips."""
NAME_BYTES = 200
"""Longest name of a run: file names may have 255 bytes, and an ending."""
OPTIMIZERS = ("adamw", "muon", "adamw8bit")
PRECISIONS = ("bf16", "fp32", "bf16-mixed", "fp16-mixed")
"""bf16: bfloat16 weights with float32 master weights. The mixed ones: float32 weights and autocast."""


@dataclass(frozen=True)
class DataTable:
    """The [data] table. Folders are absolute or relative to $MICROCINEMA_HOME/data.

    Attributes:
        folder: the data set to train on; one with a sub-folder per clip size is read as buckets.
        test_folder: the data set that sample sheets show; empty takes `folder`.
        batch: items per process and forward pass.
        accumulate: forward passes per step.
        items: number of items, for a stage that renders its data set; 0 takes the stage's default.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        "batch": (1, LARGEST_COUNT),
        "accumulate": (1, LARGEST_COUNT),
        "items": (0, LARGEST_COUNT),
    }

    folder: str = ""
    test_folder: str = ""
    batch: int = 16
    accumulate: int = 1
    items: int = 0


@dataclass(frozen=True)
class OptimTable:
    """The [optim] table.

    Attributes:
        lr: learning rate.
        optimizer: "adamw", "muon" (AdamW for all that is not a matrix) or "adamw8bit" (bitsandbytes).
        groups: factor on `lr` by learning-rate group; 0 freezes a group, which then keeps its values to the bit.
        betas, weight_decay: AdamW's; Muon takes only the weight decay.
        clip: largest norm of all gradients together; larger gradients are scaled down.
        warmup_steps: steps over which the rate rises linearly from 0.
        decay, decay_from: "cosine" or "linear" lowers the rate to 0 between this share of the budget and its end;
            "none" does not.
        ema: decay of the EMA.
        ema_device: where the EMA is kept: "" beside the weights, "cpu" off the GPU.
        max_steps, max_minutes: the budget; the first that is reached ends the run, and 0 sets no limit.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("lr", "weight_decay", "ema"), (0, 1)),
        **dict.fromkeys(("clip", "max_minutes"), (0, UNLIMITED)),
        **dict.fromkeys(("warmup_steps", "max_steps"), (0, LARGEST_COUNT)),
        "decay_from": (0, 0.99),
    }
    ALIASES: ClassVar[dict[str, str]] = {"ema_on": "ema_device"}

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
    ema_device: str = ""
    max_steps: int = 0
    max_minutes: float = 0.0

    def __post_init__(self) -> None:
        for group, factor in self.groups.items():
            checked(factor, float, f"optim.groups.{group}", (0, UNLIMITED))
        for beta in self.betas:
            if not 0 <= beta < 1:
                raise ValueError(f"optim.betas is {list(self.betas)}; each must be from 0 to below 1")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optim.optimizer is {self.optimizer!r}; it is one of {', '.join(OPTIMIZERS)}")
        if self.ema_device not in ("", "cpu"):
            raise ValueError(
                f'optim.ema_device is {self.ema_device!r}; it is "" (beside the weights) or "cpu"'
            )
        if self.decay not in ("cosine", "linear", "none"):
            raise ValueError(f"optim.decay is {self.decay!r}; it is one of cosine, linear, none")
        if not self.max_steps and not self.max_minutes:
            raise ValueError(
                "optim.max_steps and optim.max_minutes are both 0; a run needs one of them as its budget"
            )


@dataclass(frozen=True)
class LogTable:
    """The [log] table: how often a run writes what. 0 turns an interval off, except `every`.

    Attributes:
        every: steps between two rows of statistics.
        checkpoint_minutes, checkpoint_steps: intervals between checkpoints, either or both.
        keep: number of checkpoints to keep.
        sheet_minutes: interval between sample sheets.
        export_minutes: interval between exports of the EMA weights.
        wandb: Weights & Biases project that gets the statistics too; empty for none.
    """

    RANGES: ClassVar[dict[str, Range]] = {
        **dict.fromkeys(("every", "keep"), (1, LARGEST_COUNT)),
        **dict.fromkeys(("checkpoint_minutes", "sheet_minutes", "export_minutes"), (0, UNLIMITED)),
        "checkpoint_steps": (0, LARGEST_COUNT),
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
    """The whole config of one run.

    Attributes:
        stage: name of the stage to train.
        name: name of the run, of its folder and of its exported file.
        seed: of new layers, data order and all random draws.
        precision: one of `PRECISIONS`.
        fsdp: shard weights, gradients, EMA and optimizer state over the processes.
        threads: torch's CPU threads; 0 leaves the number to torch.
        init_from: the file or folder to start from, absolute or relative to $MICROCINEMA_HOME.
        export_to: the file to export to, likewise; empty for one in the run's folder.
        model, loss: the stage's own tables, which it parses into its own dataclasses.
        sampling: settings that the file recommends to the nodes, fields of `SamplerDefaults`; those left out are kept
            from the file that training continues.
    """

    RANGES: ClassVar[dict[str, Range]] = {"seed": (0, LARGEST_SEED), "threads": (0, 4096)}
    ALIASES: ClassVar[dict[str, str]] = {"sharded": "fsdp"}

    stage: str
    name: str
    optim: OptimTable
    data: DataTable = DataTable()
    log: LogTable = LogTable()
    seed: int = 0
    precision: str = "bf16"
    fsdp: bool = False
    threads: int = 0
    init_from: str = ""
    export_to: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_plain_name(self.name):
            raise ValueError(
                f"name is {self.name!r}; a plain name was expected, which the run's folder will have: without slashes "
                f"or line breaks, not of dots alone, and of at most {NAME_BYTES} bytes"
            )
        for key in ("init_from", "export_to"):
            if "\0" in getattr(self, key):
                raise ValueError(f"{key} is {getattr(self, key)!r}; no file has such a name")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}; it is one of {', '.join(PRECISIONS)}")
        if self.fsdp and (self.optim.optimizer != "adamw" or self.precision == "fp16-mixed"):
            raise ValueError(
                f"fsdp is true with optim.optimizer {self.optim.optimizer!r} and precision {self.precision!r}; FSDP "
                'needs "adamw" (the others see whole matrices or blocks) and one of "bf16", "bf16-mixed" or "fp32"'
            )

    @property
    def run_folder(self) -> Path:
        """Folder of checkpoints, sample sheets and statistics."""
        return home_folder() / "runs" / self.name

    @property
    def data_folder(self) -> Path:
        """Folder of the data set to train on."""
        return home_folder() / "data" / self.data.folder

    @property
    def test_folder(self) -> Path:
        """Folder of the data set that sample sheets show; meaningful only if `data.test_folder` is set."""
        return home_folder() / "data" / self.data.test_folder

    @property
    def export_path(self) -> Path:
        """The exported MicroCinema file."""
        return home_folder() / (self.export_to or f"runs/{self.name}/{self.name}.safetensors")


def _is_plain_name(name: str) -> bool:
    """Return whether a folder in another folder can have this name on any system, and a message show it on one line."""
    plain = name.isprintable() and name.strip(" .") and not set(name) & set('/\\:*?"<>|')
    return bool(plain) and len(name.encode()) <= NAME_BYTES


def parse(table: dict[str, Any]) -> TrainConfig:
    """Build the config from parsed TOML; errors as for `from_table`."""
    parts: dict[str, Any] = dict(table)
    for name, cls in (("data", DataTable), ("optim", OptimTable), ("log", LogTable)):
        if name in parts:
            parts[name] = from_table(cls, parts[name], f"[{name}]")
    from_table(SamplerDefaults, parts.get("sampling", {}), "[sampling]")
    return from_table(TrainConfig, parts, "the config")


def load(path: str | Path) -> TrainConfig:
    """Read the config in a TOML file.

    Raises:
        ValueError: the file is missing or not valid TOML, or as for `from_table`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(
            f"{one_line(path)} is missing; a TOML file was expected, as those in configs/{address_of_config(path)}"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{one_line(path)} cannot be read ({reason(error)}); a TOML file in UTF-8 was expected, as those in "
            "configs/"
        ) from error
    try:
        table = tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # numbers too long, and brackets too deep, are no TOMLDecodeError
        raise ValueError(f"{one_line(path)} is not valid TOML: {reason(error)}") from error
    return parse(table)


def from_table(cls: type[T], table: Any, where: str) -> T:
    """Build a dataclass from a TOML table.

    A field whose name ends with an underscore (`lambda_`) has a key without it. Keys of earlier versions stay valid;
    messages name the key as it was given.

    Args:
        cls: the dataclass. Its RANGES limit numbers, its ALIASES map earlier keys to field names.
        table: the parsed table.
        where: its name in messages: "[optim]", or "the config" for the outermost table.

    Raises:
        ValueError: not a table, an unknown, missing or repeated key, or a value of the wrong type or out of range.
    """
    if not isinstance(table, dict):
        raise ValueError(f"{where} is {table!r}; a table was expected")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    names = {**{name.removesuffix("_"): name for name in fields}, **getattr(cls, "ALIASES", {})}
    for key in table:
        if key not in names:
            todays = {name: field_name.removesuffix("_") for name, field_name in names.items()}
            raise ValueError(f"{where} has no key {key!r}{nearest(key, todays)}")
    given: dict[str, str] = {}
    for key in table:
        if names[key] in given:
            raise ValueError(
                f"{where} has {given[names[key]]!r} and {key!r}, which mean the same; give one of them"
            )
        given[names[key]] = key
    missing = [
        name
        for name, f in fields.items()
        if name not in given and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    hints, ranges = get_type_hints(cls), getattr(cls, "RANGES", {})
    prefix = f"{where[1:-1]}." if where.startswith("[") else ""
    return cls(
        **{
            name: checked(table[key], hints[name], f"{prefix}{key}", ranges.get(name))
            for name, key in given.items()
        }
    )


def to_table(settings: Any) -> dict[str, Any]:
    """Return a dataclass as a TOML table; the inverse of `from_table`, with today's keys."""
    return {name.removesuffix("_"): value for name, value in dataclasses.asdict(settings).items()}


def nearest(name: str, known: Mapping[str, str]) -> str:
    """Return the end of a message about an unknown name: the closest known name, or all of them.

    Args:
        name: the unknown name.
        known: the name to suggest, by each name that is understood.
    """
    near = difflib.get_close_matches(name, known, n=1)
    return (
        f"; did you mean {known[near[0]]!r}?"
        if near
        else f"; known: {', '.join(dict.fromkeys(known.values()))}"
    )
