"""From a Stable Diffusion checkpoint and encoded captions: which layers move, LoRA, buckets, what is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from microcinema_core.config import UNetConfig
from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.files.stable_diffusion import LDM_PREFIX
from microcinema_core.train import loop
from microcinema_core.train.batches import BucketBatches, Buckets, batches_of, open_set
from microcinema_core.train.checkpoints import ema_parts, save_checkpoint
from microcinema_core.train.config import parse
from microcinema_core.train.lora import DOWN, UP
from microcinema_core.train.shared_random import SharedRandom
from microcinema_core.train.stages import build_stage
from microcinema_core.train.trainer import Trainer
from microcinema_core.train.video import VideoStage, snr_weight
from tests.train.clip_world import write_clips
from tests.train.sd_world import ALL, SD, config, trained, write_sd_home


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    write_sd_home(tmp_path)
    return tmp_path


def moved(trainer: Trainer, home: Path) -> set[str]:
    """Return the groups whose parameters differ from those of an untrained network."""
    stage = build_stage(trainer.config)
    stage.prepare()
    after = ema_parts(trainer)
    return {
        str(stage.group_of(f"{part}.{key}"))
        for part, module in stage.modules.items()
        for key, tensor in module.state_dict().items()
        if part != "lora" and not torch.equal(after[part][key], tensor)
    }


def test_from_stable_diffusion_to_base_and_tsr_files(home: Path) -> None:
    loop.run(parse(config(ALL, model={"recompute": True})))
    base = read_checkpoint(home / "runs/my_base/my_base.safetensors", expect_roles=("base",))
    assert (base.spec.lambda_, base.spec.fps, base.spec.frames, base.spec.prediction) == (0.03, 2.0, 3, "eps")
    assert UNetConfig.from_dict(base.configs["unet"]).as_2d() == SD
    empty = load_file(home / "data/mine/empty.safetensors")["text"][0]
    torch.testing.assert_close(base.parts["appearnet"]["empty_prompt"].float(), empty, rtol=1e-3, atol=1e-3)
    sheets = sorted(path.suffix for path in (home / "runs/my_base/sheets").iterdir())
    assert sheets == [".png", ".webp"]

    write_clips(home / "data" / "windows", 5, [8.0, 32.0], channels=4, contexts=32)
    tsr = config(ALL, stage="tsr", init_from="runs/my_base/my_base.safetensors")
    loop.run(parse({**tsr, "data": {"folder": "windows", "batch": 2}}))
    assert read_checkpoint(home / "runs/my_tsr/my_tsr.safetensors", expect_roles=("tsr",)).spec.frames == 5


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
    """Frozen tensors stay bit-identical, although the networks compute in bfloat16."""
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
    trainer.stage.export(path, ema_parts(trainer))
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


def test_recomputed_blocks_give_the_same_gradients() -> None:
    plain, again = (trained(groups=ALL, precision="fp32", model={"recompute": on}) for on in (False, True))
    for name, one, other in zip(
        plain.master_weights.names, plain.master_weights.tensors, again.master_weights.tensors, strict=True
    ):
        assert one.grad is not None and other.grad is not None, name
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)


def test_float16_finds_its_scale() -> None:
    """Too large a loss scale skips steps, but does not end the run."""
    trainer = trained(groups=ALL, precision="fp16-mixed")
    for _ in range(3):
        loop.train_step(trainer)
    assert all(torch.isfinite(tensor).all() for tensor in trainer.master_weights.tensors)


def test_missing_captions_and_a_lost_shard_are_one_sentence(home: Path) -> None:
    trainer = trained(groups=ALL)
    save_checkpoint(trainer)
    (home / "data/mine/00000.safetensors").unlink()
    trainer.batches.items._open.clear()  # type: ignore[union-attr]
    with pytest.raises(
        RuntimeError, match=r"step 1: the data could not be read .*00000.safetensors.*--resume"
    ):
        loop.train_step(trainer)
    assert trainer.batches.position == 2
    folder = home / "data" / "silent"
    write_clips(folder, 3, [2.0], channels=4)
    data = {"mean": torch.zeros(6, 3, 4, 8, 8)}
    save_file(data, folder / "00000.safetensors")
    with pytest.raises(ValueError, match="have no captions"):
        build_stage(parse(config(ALL, data={"folder": "silent"})))


def test_a_checkpoint_of_another_config_is_told() -> None:
    save_checkpoint(trained(groups={**ALL, "spatial": 0}))
    match = r"is of another config: \d+ trained tensors differ, the first is {}"
    with pytest.raises(ValueError, match=match.format("unet")):  # its run froze the spatial layers
        loop.run(parse(config(ALL)), resume=True)
    with pytest.raises(ValueError, match=match.format("appearnet.spade")):
        loop.run(parse(config({**ALL, "spatial": 0}, model={"hidden": 8})), resume=True)


def test_a_group_can_be_frozen_from_some_step_on() -> None:
    before = trained(groups=ALL)
    save_checkpoint(before)
    after = loop.run(parse(config({**ALL, "spatial": 0})), resume=True)
    assert after.step == 2 and "spatial" not in after.groups
    name = "unet.input_blocks.1.0.in_layers.2.weight"
    last = dict(zip(before.master_weights.names, before.master_weights.tensors, strict=True))[name]
    assert torch.equal(after.stage.modules["unet"].get_parameter(name.removeprefix("unet.")), last)


def test_batches_of_buckets_have_one_size_and_go_on_anywhere(home: Path) -> None:
    for name, side in (("8x8", (8, 8)), ("12x8", (8, 12))):
        write_clips(home / "data/sizes" / name, 3, [2.0], channels=4, contexts=32, side=side)
    items = open_set(home / "data/sizes")
    assert isinstance(items, Buckets) and len(items) == 12 and items[11]["mean"].shape[-1] == 8
    feed = batches_of(items, batch=2, seed=1)
    assert isinstance(feed, BucketBatches)
    widths = [feed.next()["mean"].shape[-1] for _ in range(6)]
    assert sorted(widths) == [8, 8, 8, 12, 12, 12] and feed.position == [6, 6]
    later = batches_of(items, batch=2, seed=1)
    later.position = feed.position
    for _ in range(3):
        torch.testing.assert_close(later.next(), feed.next())
    stage = build_stage(parse(config(ALL, data={"folder": "sizes", "batch": 2})))
    assert isinstance(stage, VideoStage)
    stage.prepare()
    draws = SharedRandom(torch.Generator().manual_seed(0))
    for _ in range(2):
        assert torch.isfinite(stage.loss(feed.next(), draws)[0])


def test_min_snr_is_what_it_says() -> None:
    alpha_bar = torch.tensor([0.99, 0.5, 0.01])
    snr = alpha_bar / (1 - alpha_bar)
    assert snr_weight(alpha_bar, 0.0, "eps") == 1.0
    for prediction, plain in (("eps", snr), ("v", snr + 1)):
        weight = snr_weight(alpha_bar, 5.0, prediction)  # type: ignore[arg-type]
        assert isinstance(weight, Tensor)
        torch.testing.assert_close(weight * plain, snr.clamp(max=5.0))
