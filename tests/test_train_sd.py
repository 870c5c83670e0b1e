"""From a Stable Diffusion checkpoint and a set with encoded captions: which layers move, LoRA, buckets, the dry run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import default_collate

from devtools.tiny import unet_weights
from microcinema_core.checkpoint import read_checkpoint
from microcinema_core.config import UNetConfig
from microcinema_core.inflate import LDM_PREFIX
from microcinema_core.train import loop
from microcinema_core.train.__main__ import main
from microcinema_core.train.checkpoints import averaged_parts, save_checkpoint
from microcinema_core.train.config import load, parse
from microcinema_core.train.draws import Draws
from microcinema_core.train.feed import BucketFeed, feed_of
from microcinema_core.train.lora import DOWN, UP
from microcinema_core.train.plan import activations, describe
from microcinema_core.train.sets import Buckets, open_set
from microcinema_core.train.stage import build_stage
from microcinema_core.train.stages.base import BASE
from microcinema_core.train.stages.clips import ClipStage, build_clips, snr_weight
from microcinema_core.train.trainer import Trainer, build
from tests.clip_world import table, write_clips

CONFIGS = Path(__file__).parent.parent / "configs"
SD = UNetConfig(
    model_channels=64,
    channel_mult=(1, 2),
    num_res_blocks=1,
    transformer_depth=(0, 1),
    context_dim=32,
).as_2d()
ALL = {"temporal": 1.0, "injection": 1.0, "spatial": 0.1}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    weights = {f"{LDM_PREFIX}{key}": tensor.half() for key, tensor in unet_weights(SD).items()}
    save_file(weights, tmp_path / "sd.safetensors")
    write_clips(tmp_path / "data" / "mine", 3, [2.0], channels=4, contexts=32)
    return tmp_path


def config(groups: dict[str, float], *, stage: str = "base", **extra: Any) -> dict[str, Any]:
    model = {"hidden": 16, **extra.pop("model", {})}
    data = {"folder": "mine", "batch": 2}
    optim = {"lr": 1e-2, "groups": groups, "max_steps": 2, "warmup_steps": 1, "decay": "none"}
    merged = {"init_from": "sd.safetensors", "data": data, "optim": optim, **extra}
    return {**table(stage, model=model), **merged}


def trained(**arguments: Any) -> Trainer:
    """One step of the base stage."""
    settings = parse(config(**arguments))
    torch.manual_seed(0)
    stage = build_stage(settings)
    stage.prepare()
    trainer = build(settings, stage)
    loop.train_step(trainer)
    return trainer


def moved(trainer: Trainer, home: Path) -> set[str]:
    """Groups of the parameters that differ from a network that was not trained."""
    stage = build_stage(trainer.config)
    stage.prepare()
    after = averaged_parts(trainer)
    return {
        str(stage.group_of(f"{part}.{key}"))
        for part, module in stage.modules.items()
        for key, tensor in module.state_dict().items()
        if part != "lora" and not torch.equal(after[part][key], tensor)
    }


def test_from_stable_diffusion_to_base_and_tsr_files(home: Path) -> None:
    loop.run(parse(config(ALL, model={"recompute": True})))
    base = read_checkpoint(home / "runs/my_base/my_base.safetensors", expect_roles=("base",))
    assert (base.lambda_, base.fps, base.frames, base.prediction) == (0.03, 2.0, 3, "eps")
    assert UNetConfig.from_dict(base.configs["unet"]).as_2d() == SD
    empty = load_file(home / "data/mine/empty.safetensors")["text"][0]
    torch.testing.assert_close(base.parts["appearnet"]["empty_prompt"].float(), empty, rtol=1e-3, atol=1e-3)
    sheets = sorted(path.suffix for path in (home / "runs/my_base/sheets").iterdir())
    assert sheets == [".png", ".webp"]

    write_clips(home / "data" / "windows", 5, [8.0, 32.0], channels=4, contexts=32)
    tsr = config(ALL, stage="tsr", init_from="runs/my_base/my_base.safetensors")
    loop.run(parse({**tsr, "data": {"folder": "windows", "batch": 2}}))
    assert read_checkpoint(home / "runs/my_tsr/my_tsr.safetensors", expect_roles=("tsr",)).frames == 5


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (ALL, {"temporal", "injection", "spatial"}),
        ({"temporal": 1.0, "injection": 0, "spatial": 0}, {"temporal"}),
        ({"temporal": 0, "injection": 1.0, "spatial": 0}, {"injection"}),
    ],
)
@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed"])
def test_one_line_says_which_layers_move(
    home: Path, groups: dict[str, float], expected: set[str], precision: str
) -> None:
    """What stays is equal to the bit, though the networks work in bfloat16."""
    trainer = trained(groups=groups, precision=precision)
    assert moved(trainer, home) - {"None"} == expected
    assert set(trainer.groups) == expected


def test_lora_moves_alone_and_leaves_merged_and_as_a_file(home: Path) -> None:
    groups = {"lora": 1.0, "temporal": 0, "injection": 0, "spatial": 0}
    trainer = trained(groups=groups, model={"lora_rank": 2})
    assert set(trainer.groups) == {"lora"} and not moved(trainer, home) - {"None"}
    loop.train_step(trainer)
    save_checkpoint(trainer)
    path = home / "low.safetensors"
    trainer.stage.export(path, averaged_parts(trainer))
    low = load_file(home / "low_lora.safetensors")
    name = "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q"
    assert {f"{name}{UP}", f"{name}{DOWN}"} <= set(low) and len(low) == 2 * 10 * 4
    key = "middle_block.1.transformer_blocks.0.attn1.to_q.weight"
    merged, before = (
        read_checkpoint(path).parts["unet"][key],
        load_file(home / "sd.safetensors")[LDM_PREFIX + key],
    )
    addition = low[f"{name}{UP}"].float() @ low[f"{name}{DOWN}"].float()
    assert addition.abs().max() > 0
    torch.testing.assert_close(merged.float(), before.float() + addition, rtol=2e-3, atol=2e-3)


def test_float16_finds_its_scale() -> None:
    """Too large a scale costs steps, not the run."""
    trainer = trained(groups=ALL, precision="fp16-mixed")
    for _ in range(3):
        loop.train_step(trainer)
    assert all(torch.isfinite(tensor).all() for tensor in trainer.masters.tensors)


def test_missing_captions_and_a_lost_shard_are_one_sentence(home: Path) -> None:
    trainer = trained(groups=ALL)
    save_checkpoint(trainer)
    (home / "data/mine/00000.safetensors").unlink()
    trainer.feed.items._open.clear()  # type: ignore[union-attr]
    with pytest.raises(
        RuntimeError, match=r"step 1: the data could not be read .*00000.safetensors.*--resume"
    ):
        loop.train_step(trainer)
    assert trainer.feed.position == 2
    folder = home / "data" / "silent"
    write_clips(folder, 3, [2.0], channels=4)
    data = {"mean": torch.zeros(6, 3, 4, 8, 8)}
    save_file(data, folder / "00000.safetensors")
    with pytest.raises(ValueError, match="have no captions"):
        build_stage(parse(config(ALL, data={"folder": "silent"})))


def test_a_checkpoint_of_another_config_is_told() -> None:
    save_checkpoint(trained(groups={**ALL, "spatial": 0}))
    match = r"is of another config: \d+ trained tensors differ, the first is {}"
    with pytest.raises(ValueError, match=match.format("unet")):  # spatial layers are to move, and never did
        loop.run(parse(config(ALL)), resume=True)
    with pytest.raises(ValueError, match=match.format("appearnet.spade")):
        loop.run(parse(config({**ALL, "spatial": 0}, model={"hidden": 8})), resume=True)


def test_a_group_can_be_frozen_from_some_step_on() -> None:
    before = trained(groups=ALL)
    save_checkpoint(before)
    after = loop.run(parse(config({**ALL, "spatial": 0})), resume=True)
    assert after.step == 2 and "spatial" not in after.groups
    name = "unet.input_blocks.1.0.in_layers.2.weight"
    last = dict(zip(before.masters.names, before.masters.tensors, strict=True))[name]
    assert torch.equal(after.stage.modules["unet"].get_parameter(name.removeprefix("unet.")), last)


def test_batches_of_buckets_have_one_size_and_go_on_anywhere(home: Path) -> None:
    for name, side in (("8x8", (8, 8)), ("12x8", (8, 12))):
        write_clips(home / "data/sizes" / name, 3, [2.0], channels=4, contexts=32, side=side)
    items = open_set(home / "data/sizes")
    assert isinstance(items, Buckets) and len(items) == 12 and items[11]["mean"].shape[-1] == 8
    feed = feed_of(items, batch=2, seed=1)
    assert isinstance(feed, BucketFeed)
    widths = [feed.next()["mean"].shape[-1] for _ in range(6)]
    assert sorted(widths) == [8, 8, 8, 12, 12, 12] and feed.position == [6, 6]
    later = feed_of(items, batch=2, seed=1)
    later.position = feed.position
    for _ in range(3):
        torch.testing.assert_close(later.next(), feed.next())
    stage = build_stage(parse(config(ALL, data={"folder": "sizes", "batch": 2})))
    assert isinstance(stage, ClipStage)
    stage.prepare()
    draws = Draws(torch.Generator().manual_seed(0))
    for _ in range(2):
        assert torch.isfinite(stage.loss(feed.next(), draws)[0])


def test_the_dry_run_counts(home: Path) -> None:
    text = describe(parse(config({**ALL, "spatial": 0})))
    stage = build_stage(parse(config(ALL)))
    numbers = {"temporal": 0, "injection": 0}
    for part, module in stage.modules.items():
        for key, parameter in module.named_parameters():
            if (group := stage.group_of(f"{part}.{key}")) in numbers:
                numbers[group] += parameter.numel()
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert all(f"{count / 1e6:.2f} M" in lines[group] for group, count in numbers.items())
    assert "rate 0.01" in lines["temporal"] and "frozen" in lines and "spatial" not in lines
    assert "6 items, 2 a step: 3.0 steps per epoch; 2 steps are 0.67 epochs" in text
    assert not (home / "runs").exists()


def test_activations_are_counted_as_autograd_keeps_them() -> None:
    """Of a real loss, apart from what its own arithmetic keeps, and attention, which is counted as a fused one's."""
    settings = parse(config(ALL, precision="fp32"))
    stage = build_clips(BASE, settings, "meta")
    plain, again = activations(stage, settings)
    assert 0 < again < plain
    real = build_stage(settings)
    weights = {p.untyped_storage()._cdata for m in real.modules.values() for p in m.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    batch = default_collate([real.dataset[i] for i in range(2)])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        real.loss(batch, Draws(torch.Generator().manual_seed(0)))
    held = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights)
    assert plain == pytest.approx(held, rel=0.15)


def test_min_snr_is_what_it_says() -> None:
    alpha_bar = torch.tensor([0.99, 0.5, 0.01])
    snr = alpha_bar / (1 - alpha_bar)
    assert snr_weight(alpha_bar, 0.0, "eps") == 1.0
    for prediction, plain in (("eps", snr), ("v", snr + 1)):
        weight = snr_weight(alpha_bar, 5.0, prediction)  # type: ignore[arg-type]
        assert isinstance(weight, Tensor)
        torch.testing.assert_close(weight * plain, snr.clamp(max=5.0))


@pytest.mark.parametrize("name", ["sd21_base", "sd21_tsr"])
def test_the_shipped_rates_are_the_papers(name: str) -> None:
    shipped = load(CONFIGS / f"{name}.toml")
    rates = {group: shipped.optim.lr * factor for group, factor in shipped.optim.groups.items()}
    assert rates == pytest.approx({"temporal": 2e-5, "injection": 2e-5, "spatial": 2e-6})
    assert shipped.model["lambda_"] == 0.03 and shipped.optim.ema == 0.9999


def test_the_command_says_what_is_wrong(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "bad.toml"
    path.write_text(
        'stage = "base"\nname = "x"\n[optim]\nlr = 1e-4\nmax_steps = 1\n[model]\nprediction = "x0"\n'
    )
    assert main([str(path)]) == 1
    assert capsys.readouterr().err == "model.prediction is 'x0'; it is one of auto, eps, v\n"
