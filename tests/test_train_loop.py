"""The loop on a network of a few weights: what it promises about resuming, masters, averages and groups."""

import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from microcinema_core.train import loop, state
from microcinema_core.train.checkpoints import averaged_parts, load_checkpoint, save_checkpoint
from microcinema_core.train.config import parse
from microcinema_core.train.feed import Feed, Remembered
from microcinema_core.train.masters import AverageWeights, MasterWeights
from microcinema_core.train.report import Report
from microcinema_core.train.step import Diverged, rate_factor
from microcinema_core.train.trainer import Trainer, build
from tests.train_world import Points, Toy, Wide, config


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    return tmp_path


def start(cfg, toy: Toy) -> Trainer:
    toy.prepare()
    return build(cfg, toy)


def seeded(toy: type[Toy] = Toy, **kw: int) -> Toy:
    torch.manual_seed(5)
    return toy(**kw)


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(home: Path) -> None:
    whole = loop.run(config("whole"), stage=seeded())

    half = start(config("half"), seeded())
    for _ in range(5):
        loop.train_step(half)
    save_checkpoint(half)
    torch.manual_seed(99)
    resumed = loop.run(config("half"), stage=Toy(), resume=True)

    assert resumed.step == whole.step == 12
    for ours, theirs in zip(resumed.masters.tensors, whole.masters.tensors, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(resumed.average.tensors, whole.average.tensors, strict=True):
        assert torch.equal(ours, theirs)
    files = [load_file(home / f"runs/{name}/{name}.safetensors") for name in ("half", "whole")]
    assert all(torch.equal(files[0][key], files[1][key]) for key in files[1])


@pytest.mark.parametrize("optimizer", ["muon", "adamw8bit"])
def test_every_optimizer_goes_on_to_the_bit(optimizer: str) -> None:
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    settings = config(optimizer=optimizer, ema_on="cpu", log={"checkpoint_steps": 1})
    whole, resumed = start(settings, seeded(Wide)), build(settings, Wide())
    for _ in range(3):
        loop.train_step(whole)
    save_checkpoint(whole)
    load_checkpoint(resumed)
    for trainer in (whole, resumed):
        for _ in range(3):
            loop.train_step(trainer)
    for ours, theirs in zip(resumed.masters.tensors, whole.masters.tensors, strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_leaves_config_figures_sheet_and_export(home: Path) -> None:
    loop.run(config(), stage=seeded())
    folder = home / "runs" / "toy"
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert {"loss", "extra", "lr/fast", "lr/slow", "grad/fast", "grad/slow", "seconds_per_step"} <= set(
        rows[0]
    )
    assert rows[0]["lr/slow"] == pytest.approx(0.1 * rows[0]["lr/fast"])
    assert json.loads((folder / "config.json").read_text())["data"]["batch"] == 7
    assert list((folder / "sheets").glob("*.png"))
    assert (folder / "toy.safetensors").exists()


def test_what_is_frozen_stays_and_what_is_trained_moves(home: Path) -> None:
    toy = seeded()
    before = {key: t.clone() for key, t in toy.net.state_dict().items()}
    trainer = start(config(), toy)
    assert not any(name.startswith("net.fixed") for name in trainer.masters.names)
    loop.train_step(trainer)
    after = averaged_parts(trainer)["net"]
    assert all(t.dtype == torch.float32 for t in after.values())
    assert torch.equal(after["fixed.weight"], before["fixed.weight"])  # though it works in bfloat16
    assert not torch.equal(after["fast.weight"], before["fast.weight"])


def test_biases_are_not_decayed_and_unknown_groups_are_told() -> None:
    trainer = start(config(), seeded())
    decay = {id(p): g["weight_decay"] for g in trainer.optimizer.param_groups for p in g["params"]}
    for name, tensor in zip(trainer.masters.names, trainer.masters.tensors, strict=True):
        assert decay[id(tensor)] == (0.01 if tensor.ndim > 1 else 0.0), name
    with pytest.raises(ValueError, match="group 'slow'"):
        start(config(groups={"fast": 1.0}), seeded())


def test_nan_stops_and_keeps_the_last_good_checkpoint(home: Path) -> None:
    trainer = start(config(), seeded(explode_at=7))
    for _ in range(3):
        loop.train_step(trainer)
    save_checkpoint(trainer)
    with pytest.raises(Diverged, match="nan"):
        loop.train_step(trainer)
    found = state.checkpoints(home / "runs/toy/checkpoints")
    assert [path.name for path in found] == ["step-00000003"]
    assert all(torch.isfinite(t).all() for key, t in state.read(found[0])[0].items() if t.is_floating_point())


def test_a_signal_saves_and_ends(home: Path) -> None:
    import os
    import signal

    class Impatient(Toy):
        def loss(self, batch, draws):
            if self.calls == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return super().loss(batch, draws)

    before = signal.getsignal(signal.SIGINT)
    trainer = loop.run(config(), stage=seeded(Impatient))
    assert 0 < trainer.step < 12
    assert state.checkpoints(home / "runs/toy/checkpoints")[-1].name == f"step-{trainer.step:08d}"
    assert signal.getsignal(signal.SIGINT) is before


def test_half_written_checkpoints_are_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.save(tmp_path, 1, {"a": torch.ones(2)}, {}, keep=2)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            state.save(tmp_path, 2, {"a": torch.zeros(2)}, {}, keep=2)
    assert [p.name for p in state.checkpoints(tmp_path)] == ["step-00000001"]
    for step in (3, 4, 5):
        state.save(tmp_path, step, {"a": torch.full((2,), float(step))}, {"x": step}, keep=2)
    assert [p.name for p in state.checkpoints(tmp_path)] == ["step-00000004", "step-00000005"]
    assert not list(tmp_path.glob(".*"))
    tensors, scalars = state.read(state.checkpoints(tmp_path)[-1])
    assert scalars == {"step": 5, "x": 5} and torch.equal(tensors["a"], torch.full((2,), 5.0))


def test_a_full_disk_is_one_sentence_and_older_checkpoints_stay(tmp_path: Path) -> None:
    """The kernel's own limit on a file's size stands in for the disk's end."""
    state.save(tmp_path, 1, {"a": torch.ones(2)}, {}, keep=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=r"could not save .*step-00000002.*older checkpoints are whole"):
            state.save(tmp_path, 2, {"a": torch.zeros(100_000)}, {}, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(state.read(tmp_path / "step-00000001")[0]["a"], torch.ones(2))


def test_a_new_run_does_not_touch_the_checkpoints_of_an_old_one() -> None:
    loop.run(config(), stage=seeded())
    with pytest.raises(ValueError, match=r"holds step-00000012 of an earlier run.*--resume"):
        loop.run(config(), stage=seeded())


def test_figures_of_steps_that_are_done_again_are_forgotten(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"step": step}) + "\n" for step in (4, 8, 12))
    folder = tmp_path / "runs/toy"
    folder.mkdir(parents=True)
    (folder / "stats.jsonl").write_text(rows + '{"step": 16, "lo')
    Report(config(), step=9)
    assert (folder / "stats.jsonl").read_text() == '{"step": 4}\n{"step": 8}\n'


def test_masters_keep_what_bf16_would_lose() -> None:
    weight = nn.Parameter(torch.ones(1))
    masters = MasterWeights({"w": weight}, separate=True)
    weight.data = weight.data.bfloat16()
    for _ in range(10):
        with torch.no_grad():
            masters.tensors[0].add_(1e-3)
        masters.publish()
    assert masters.tensors[0].item() == pytest.approx(1.01)
    assert weight.item() == pytest.approx(1.01, abs=0.004)
    for _ in range(3):
        (weight * 1.0).sum().backward()
        masters.collect_gradients()
    assert masters.tensors[0].grad.item() == 3.0 and weight.grad is None


@pytest.mark.parametrize("separate", [True, False])
def test_average_is_shown_and_taken_back(separate: bool) -> None:
    weight = nn.Parameter(torch.zeros(1))
    masters = MasterWeights({"w": weight}, separate=separate)
    average = AverageWeights(masters, 0.5)
    with torch.no_grad():
        masters.tensors[0].fill_(1.0)
    masters.publish()
    average.update(1000)
    assert average.tensors[0].item() == pytest.approx(0.5)
    with average.shown():
        assert weight.item() == pytest.approx(0.5)
    assert weight.item() == 1.0


def test_feed_takes_each_item_once_an_epoch_and_goes_on_anywhere() -> None:
    feed = Feed(Points(), batch=8, seed=3)
    values = torch.cat([feed.next()["x"][:, 0] for _ in range(5)])
    torch.testing.assert_close(values.sort().values, torch.linspace(-1, 1, 40))
    later = Feed(Points(), batch=8, seed=3, position=feed.position)
    torch.testing.assert_close(later.next(), feed.next())
    with pytest.raises(ValueError, match="empty"):
        Feed([], batch=1, seed=0)


def test_remembered_pictures_are_rendered_once() -> None:
    class Pictures:
        calls = 0

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Tensor:
            self.calls += 1
            return torch.full((3, 2, 2), -1.0 + index)

    source = Pictures()
    kept = Remembered(source)
    torch.testing.assert_close(kept[0], kept[0])
    torch.testing.assert_close(kept[1], torch.zeros(3, 2, 2), atol=1 / 127, rtol=0)
    assert source.calls == 2


def test_rate_rises_then_falls() -> None:
    optim = config(decay="linear", decay_from=0.5).optim
    assert rate_factor(optim, 0, 0.0) == pytest.approx(1 / 3)
    assert rate_factor(optim, 10, 0.5) == 1.0
    assert rate_factor(optim, 10, 0.75) == pytest.approx(0.5)
    assert rate_factor(optim, 10, 1.0) == 0.0


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"stage": "vae", "name": "a", "optim": {"lr": 1.0, "max_step": 3}}, "did you mean 'max_steps'"),
        ({"stage": "vae", "name": "a", "optim": {"lr": 1.0}}, "needs one of them"),
        ({"stage": "vae", "optim": {"lr": 1.0, "max_steps": 3}}, "lacks name"),
        ({"stage": "vae", "name": "a", "optim": {"lr": 1.0, "max_steps": 3, "decay": "x"}}, "cosine, linear"),
        ({"stage": "vae", "name": "a", "precision": "fp8", "optim": {"lr": 1.0, "max_steps": 3}}, "fp8"),
    ],
)
def test_config_errors_name_the_key(table: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(table)
