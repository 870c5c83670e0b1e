"""Config errors: one sentence with the key, its value, and what is allowed or what was meant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microcinema_core.train.__main__ import main
from microcinema_core.train.config import (
    DataTable,
    LogTable,
    OptimTable,
    TrainConfig,
    from_table,
    load,
    parse,
)
from microcinema_core.train.stages import build_stage
from microcinema_core.train.trainer import select_trainable
from microcinema_core.train.video_config import LossTable, ModelTable
from microcinema_core.values import checked
from mini.stages.image import ImageLossTable, ImageModelTable
from tests.train.clip_world import table, to_toml, write_home
from tests.train.train_world import Toy
from tests.train.train_world import config as toy_config

ROOT = Path(__file__).parents[2]
CONFIGS = [*(ROOT / "configs").glob("*.toml"), *(ROOT / "mini" / "configs").glob("*.toml")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    write_home(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MICROCINEMA_HOME", str(folder))
        yield folder


def changed(name: str, key: str, value: Any) -> dict[str, Any]:
    """Return the clip world's config with another value of a table's key, or of a top-level key (name "")."""
    whole = table("base")
    return {**whole, key: value} if not name else {**whole, name: {**whole.get(name, {}), key: value}}


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("optim", "max_step", 3, "[optim] has no key 'max_step'; did you mean 'max_steps'?"),
        ("", "zeed", 3, "the config has no key 'zeed'; did you mean 'seed'?"),
        ("optim", "decay", "x", "optim.decay is 'x'; it is one of cosine, linear, none"),
        ("optim", "optimizer", "sgd", "optim.optimizer is 'sgd'; it is one of adamw, muon, adamw8bit"),
        ("optim", "max_steps", 0, "a run needs one of them as its budget"),
        ("optim", "max_steps", 2.5, "optim.max_steps is 2.5; expected a whole number from 0 to 2147483647"),
        ("optim", "lr", "x", "optim.lr is 'x'; expected a finite number from 0 to 1"),
        ("optim", "lr", -1.0, "optim.lr is -1.0; expected a finite number from 0 to 1"),
        ("optim", "betas", [0.9], "optim.betas is [0.9]; expected a list of 2"),
        ("optim", "betas", [0.9, "x"], "optim.betas[1] is 'x'; expected a finite number"),
        ("optim", "groups", 3, "optim.groups is 3; expected a table"),
        ("optim", "groups", {"temporal": "1"}, "optim.groups.temporal is '1'; expected a finite number"),
        ("optim", "betas", [0.9, 1.0], "optim.betas is [0.9, 1.0]; each must be from 0 to below 1"),
        ("optim", "betas", [-0.1, 0.9], "each must be from 0 to below 1"),
        ("optim", "betas", [float("nan"), 0.9], "optim.betas[0] is nan; expected a finite number"),
        (
            "optim",
            "groups",
            {"temporal": -1.0},
            "optim.groups.temporal is -1.0; expected a finite number, 0 or more",
        ),
        (
            "optim",
            "groups",
            {"temporal": float("inf")},
            "temporal is inf; expected a finite number, 0 or more",
        ),
        ("optim", "lr", float("nan"), "optim.lr is nan; expected a finite number from 0 to 1"),
        ("optim", "clip", float("inf"), "optim.clip is inf; expected a finite number, 0 or more"),
        (
            "optim",
            "max_minutes",
            float("inf"),
            "optim.max_minutes is inf; expected a finite number, 0 or more",
        ),
        ("optim", "max_minutes", -1, "optim.max_minutes is -1; expected a finite number, 0 or more"),
        ("optim", "max_minutes", 10**400, "expected a finite number, 0 or more"),
        ("", "seed", -1, "seed is -1; expected a whole number from 0 to"),
        ("", "seed", 10**30, "expected a whole number from 0 to 10000000000000"),
        ("", "threads", 10**12, "threads is 1000000000000; expected a whole number from 0 to 4096"),
        ("data", "batch", 10**30, "expected a whole number from 1 to 2147483647"),
        ("data", "folder", ["x"], "data.folder is ['x']; expected a text in quotes"),
        ("", "init_from", "a\0b", "init_from is 'a\\x00b'; no file has such a name"),
        ("", "name", "..", "name is '..'; a plain name was expected"),
        ("", "name", ".", "name is '.'; a plain name was expected"),
        ("", "name", " ", "name is ' '; a plain name was expected"),
        ("", "name", "a\nb", r"name is 'a\nb'; a plain name was expected"),
        ("", "name", "n" * 300, "and of at most 200 bytes"),
        ("", "model", [1], "model is [1]; expected a table"),
        ("data", "batch", 0, "data.batch is 0; expected a whole number from 1 to 2147483647"),
        ("log", "keep", True, "log.keep is True; expected a whole number"),
        ("", "data", 3, "[data] is 3; a table was expected"),
        ("", "precision", "fp8", "precision is 'fp8'; it is one of bf16, fp32, bf16-mixed, fp16-mixed"),
        ("", "sharded", "yes", "sharded is 'yes'; expected true or false"),
        ("", "name", "../x", "name is '../x'; a plain name was expected"),
    ],
)
def test_errors_name_key_value_and_what_is_allowed(name: str, key: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(changed(name, key, value))
    assert words in str(error.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match="the config lacks name"):
        parse({"stage": "base", "optim": {"lr": 1.0, "max_steps": 3}})


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("", "stage", "bass", "stage is 'bass'; it is one of base, tsr"),
        ("", "init_from", "", "init_from is empty; it names the file that training starts from"),
        ("", "init_from", "absent.safetensors", "absent.safetensors is missing; train the stage"),
        ("data", "folder", "", "data.folder is empty; it names a set of encoded clips"),
        ("data", "folder", "bsae", "bsae/index.json is missing: a set was expected, as data.prepare writes"),
        ("model", "prediction", "x0", "model.prediction is 'x0'; it is one of auto, eps, v"),
        ("model", "recompute", "no", "model.recompute is 'no'; expected true or false"),
        ("loss", "drop_text", 2.0, "loss.drop_text is 2.0; expected a finite number from 0 to 1"),
    ],
)
@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_the_command_says_it_and_ends(
    home: Path, capsys: pytest.CaptureFixture[str],
    name: str, key: str, value: Any, words: str, options: list[str],
) -> None:  # fmt: skip
    (home / "bad.toml").write_text(to_toml(changed(name, key, value)))
    assert main([str(home / "bad.toml"), *options]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not (home / "runs").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a = [", "is not valid TOML"),
        (None, "is missing; a TOML file"),
        (b"a = " + b"[" * 50_000, "is not valid TOML"),
        (b"seed = " + b"1" * 5000, "is not valid TOML"),
        (b'name = "caf\xe9"', "cannot be read ('utf-8' codec"),
        (b"a = 1\na = 2", "is not valid TOML"),
        ("folder", "cannot be read (Is a directory); a TOML file"),
        (b"", "the config lacks stage, name, optim"),
    ],
)
def test_a_config_that_cannot_be_read(
    tmp_path: Path, text: bytes | str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(text, bytes):
        (tmp_path / "x.toml").write_bytes(text)
    elif text is not None:
        (tmp_path / "x.toml").mkdir()
    assert main([str(tmp_path / "x.toml")]) == 1
    said = capsys.readouterr().err
    assert words in said and ("x.toml" in said or not text) and said.count("\n") == 1


def test_a_config_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    text = to_toml(table("base"))
    (tmp_path / "x.toml").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    (tmp_path / "y.toml").write_text(text)
    assert load(tmp_path / "x.toml") == load(tmp_path / "y.toml")


def test_a_name_of_two_lines_is_told_on_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "a\nb\udcff.toml")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and r"a\nb\udcff.toml is missing" in said


@pytest.mark.parametrize("steps", ["0", "-3", "x"])
def test_a_measurement_of_no_steps_trains_nothing(home: Path, steps: str) -> None:
    (home / "good.toml").write_text(to_toml(table("base")))
    with pytest.raises(SystemExit):
        main([str(home / "good.toml"), "--measure", steps])
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"fast": 1.0}, r"slow.weight is in group 'slow'; optim.groups has fast"),
        ({"fast": 1.0, "slwo": 1.0}, r"optim.groups names 'slwo', .* did you mean 'slow'"),
        ({"fast": 1.0, "slow": 1.0, "lora": 1.0}, r"names 'lora', .*; model.lora_rank makes it"),
        ({"fast": 0, "slow": 0}, r"nothing is trained; give one of its groups a rate above 0"),
    ],
)
def test_groups_are_those_that_parameters_are_in(groups: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        select_trainable(Toy(), toy_config(groups=groups).optim)


@pytest.mark.parametrize("path", sorted(CONFIGS), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    assert load(path).name == path.stem


@pytest.mark.parametrize("name", ["sd21_base", "sd21_tsr"])
def test_the_shipped_rates_are_the_papers(name: str) -> None:
    shipped = load(ROOT / "configs" / f"{name}.toml")
    rates = {group: shipped.optim.lr * factor for group, factor in shipped.optim.groups.items()}
    assert rates == pytest.approx({"temporal": 2e-5, "injection": 2e-5, "spatial": 2e-6})
    assert shipped.model["lambda"] == 0.03 and shipped.optim.ema == 0.9999
    assert (shipped.loss["min_snr"], shipped.loss["noise_offset"]) == (0, 0), "off, as in the paper"
    assert shipped.model["injected_norm"] == "clip", "3D group normalisation, Eq. 1"


TABLES: tuple[type, ...] = (
    TrainConfig, DataTable, OptimTable, LogTable, ModelTable, LossTable, ImageModelTable, ImageLossTable
)  # fmt: skip
OLD_KEYS: list[tuple[type, dict[str, Any], dict[str, Any]]] = [
    (TrainConfig, {"sharded": True}, {"fsdp": True}),
    (OptimTable, {"ema_on": "cpu"}, {"ema_device": "cpu"}),
    (ModelTable, {"lambda_": 0.5}, {"lambda": 0.5}),
    (ModelTable, {"terminal": "zero"}, {"zero_terminal_snr": True}),
    (ModelTable, {"terminal": "sd"}, {"zero_terminal_snr": False}),
    (ModelTable, {"terminal": "auto"}, {"zero_terminal_snr": "auto"}),
    (ModelTable, {"recompute": True}, {"gradient_checkpointing": True}),
    (LossTable, {"drop_text": 0.5}, {"text_dropout": 0.5}),
    (LossTable, {"drop_appearance": 0.5}, {"appearance_dropout": 0.5}),
    (ImageModelTable, {"terminal": "zero"}, {"zero_terminal_snr": True}),
    (ImageModelTable, {"terminal": "sd"}, {"zero_terminal_snr": False}),
    (ImageLossTable, {"guidance": 7.0}, {"guidance_scale": 7.0}),
]
OPTIM = OptimTable(lr=1e-3, max_steps=1)
REQUIRED: dict[type, dict[str, Any]] = {
    TrainConfig: {"stage": "base", "name": "x", "optim": OPTIM},
    OptimTable: {"lr": 1e-3, "max_steps": 1},
    ImageModelTable: {"prediction": "v"},
}


def settings(cls: type, keys: dict[str, Any]) -> Any:
    """Return a table's dataclass with these keys; for the image stage's [model], the spec made from it."""
    made: Any = from_table(cls, {**REQUIRED.get(cls, {}), **keys}, "[table]")
    return made.spec() if isinstance(made, ImageModelTable) else made


def test_all_old_keys_are_tested() -> None:
    known = {(cls, key) for cls in TABLES for key in getattr(cls, "ALIASES", {})}
    assert {(cls, key) for cls, old, _ in OLD_KEYS for key in old} == known


@pytest.mark.parametrize(("cls", "old", "new"), OLD_KEYS)
def test_an_old_key_means_the_new_one(cls: type, old: dict[str, Any], new: dict[str, Any]) -> None:
    assert settings(cls, old) == settings(cls, new)


@pytest.mark.parametrize(("cls", "old", "new"), OLD_KEYS)
def test_an_old_and_a_new_key_together_are_refused(
    cls: type, old: dict[str, Any], new: dict[str, Any]
) -> None:
    (before,), (today,) = old, new
    for keys, first, second in ((old | new, before, today), (new | old, today, before)):
        with pytest.raises(ValueError) as error:
            settings(cls, keys)
        words = f"[table] has {first!r} and {second!r}, which mean the same; give one of them"
        assert str(error.value) == words


@pytest.mark.parametrize(
    ("name", "key", "meant"),
    [
        ("model", "recomput", "gradient_checkpointing"),
        ("loss", "drop_txt", "text_dropout"),
        ("", "shard", "fsdp"),
    ],
)
def test_a_slip_in_an_earlier_key_suggests_todays(name: str, key: str, meant: str, home: Path) -> None:
    config = parse(changed(name, key, 1)) if name in ("model", "loss") else None
    with pytest.raises(ValueError, match=f"has no key '{key}'; did you mean '{meant}'"):
        build_stage(config) if config else parse(changed(name, key, 1))


def test_limits_hold_for_each_number_of_a_list() -> None:
    assert checked([3, 4], tuple[int, ...], "widths", (1, 8)) == (3, 4)
    with pytest.raises(ValueError, match=r"widths\[1\] is 9; expected a whole number from 1 to 8"):
        checked([3, 9], tuple[int, ...], "widths", (1, 8))
