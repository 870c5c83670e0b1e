"""Encoded sets: shards written, read back, resumed, extended; captions tokenized."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch

from microcinema_core.config import CONTEXT_LENGTH, END_TOKEN, START_TOKEN, VAEConfig
from microcinema_core.data.shards import ShardDataset, shard_path
from microcinema_core.data.tokens import CaptionTokenizer
from microcinema_core.files import paths
from microcinema_core.files.checkpoint import read_checkpoint, write_checkpoint
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.vae import FoldedVAE
from mini.train import explain
from mini.world import encode, encoder
from mini.world.render import render
from mini.world.subset import select
from tests.mini import data_world

pytest.importorskip("skimage")
pytest.importorskip("transformers")


def write_tokenizer(folder: Path, *merges: str) -> Path:
    """Write CLIP's tokenizer with letters and what `merges` join, such as "a t</w>", in ComfyUI's format."""
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,'-"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [*(pair.replace(" ", "") for pair in merges), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> encode.EncodingJob:
    folder = tmp_path_factory.mktemp("encode")
    config = VAEConfig(latent_channels=4, widths=(16, 16), res_blocks=1, decoder_blocks=1, norm_groups=8)
    parts = {"vae": FoldedVAE(config).state_dict()}
    vae = write_checkpoint(
        folder / "vae.safetensors",
        parts,
        spec=ModelSpec("image"),
        configs={"vae": config},
    )
    settings = encode.EncodingSettings(
        "tsr", "train", encoder.encoder_hash(vae), captions_per_clip=2, shard_size=4
    )
    emoji, tokenizer = data_world.write_world(folder / "emoji"), write_tokenizer(folder / "tokenizer")
    return encode.EncodingJob(folder / "tsr", emoji, tokenizer, vae, settings, dtype="fp32", batch_frames=10)


class OneToken:
    """A stand-in for the tokenizer, as captions in letters exceed its length: every caption is empty."""

    def __init__(self, folder: Path) -> None:
        pass

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = torch.full((len(texts), CONTEXT_LENGTH), END_TOKEN, dtype=torch.int32)
        rows[:, 0] = START_TOKEN
        return rows


@pytest.fixture(autouse=True)
def short_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "CaptionTokenizer", OneToken)


def fresh(job: encode.EncodingJob, folder: Path, **changes: object) -> encode.EncodingJob:
    return dataclasses.replace(job, folder=folder, **changes)


def test_round_trip(job: encode.EncodingJob, tmp_path: Path) -> None:
    folder = encode.encode_set(fresh(job, tmp_path / "tsr"), 6)
    data = ShardDataset(folder)
    assert len(data) == 6 and data.index["count"] == 6 and data.index["latent"] == [4, 16, 16]
    assert data.index["fps"] == [8.0, 32.0] and data.index["frames"] == 5
    assert data.empty_tokens.tolist() == [START_TOKEN, *[END_TOKEN] * (CONTEXT_LENGTH - 1)]
    sampler, moments = encode._sampler(job), encoder.load_encoder(job.vae, dtype="fp32")
    for index in range(6):
        item, sample = data[index], sampler[index]
        assert {name: tuple(value.shape) for name, value in item.items()} == {
            "mean": (5, 4, 16, 16),
            "std": (5, 4, 16, 16),
            "tokens": (2, CONTEXT_LENGTH),
            "fps": (),
            "group": (),
        }
        mean, std = moments(render(job.emoji, sample.clip, sample.times))
        torch.testing.assert_close(item["mean"], mean, atol=5e-3, rtol=2e-3)
        torch.testing.assert_close(item["std"], std, atol=5e-3, rtol=2e-3)
        assert float(item["fps"]) == sample.fps
        assert data.index["motion_keys"][int(item["group"])] == sample.clip.emoji.motion_key
    recipes = json.loads(shard_path(folder, 1).with_suffix(".json").read_text())
    assert recipes[1] == json.loads(json.dumps(sampler[5].recipe()))
    copy = pickle.loads(pickle.dumps(data))  # noqa: S301
    torch.testing.assert_close(copy[3]["mean"], data[3]["mean"])


def test_a_part_of_a_set_by_added_motion(job: encode.EncodingJob, tmp_path: Path) -> None:
    whole = ShardDataset(encode.encode_set(fresh(job, tmp_path / "whole"), 14))
    motions = [encode._sampler(job)[index].clip.motion for index in range(14)]
    rows = [index for index, motion in enumerate(motions) if motion in ("left", "up", "towards")]
    assert 0 < len(rows) < 14
    chosen = ["left", "up", "towards"]
    assert select(whole.folder, tmp_path / "part", chosen) == len(rows)
    part = ShardDataset(tmp_path / "part")
    assert len(part) == len(rows)
    for number, row in enumerate(rows):
        for key, value in whole[row].items():
            assert torch.equal(part[number][key], value)
    with pytest.raises(ValueError, match="holds a set already"):
        select(whole.folder, tmp_path / "part", chosen)


def test_a_stopped_run_goes_on_and_a_set_can_grow(job: encode.EncodingJob, tmp_path: Path) -> None:
    whole = ShardDataset(encode.encode_set(fresh(job, tmp_path / "whole"), 10))
    half = fresh(job, tmp_path / "half")
    encode.encode_set(half, 6)
    shard_path(half.folder, 1).unlink()
    (half.folder / "00001.safetensors.1.tmp").write_bytes(b"torn")
    kept = shard_path(half.folder, 0).stat().st_mtime_ns
    assert encode.plan(half, 10) == ([4, 4, 2], [(1, 4), (2, 2)])
    grown = ShardDataset(encode.encode_set(half, 10))
    assert shard_path(half.folder, 0).stat().st_mtime_ns == kept
    assert len(grown) == len(whole) == 10
    for index in range(10):
        for name, value in whole[index].items():
            torch.testing.assert_close(grown[index][name], value, atol=0, rtol=0)


def test_other_settings_are_refused(job: encode.EncodingJob, tmp_path: Path) -> None:
    encode.encode_set(fresh(job, tmp_path / "tsr"), 2)
    other = dataclasses.replace(job.settings, encoder_hash="other")
    with pytest.raises(ValueError, match=r"encoder_hash = .* delete it, or choose another name"):
        encode.encode_set(fresh(job, tmp_path / "tsr", settings=other), 2)


def test_a_set_of_an_earlier_version_goes_on(job: encode.EncodingJob, tmp_path: Path) -> None:
    old = fresh(job, tmp_path / "tsr")
    encode.encode_set(old, 2)
    settings = json.loads((old.folder / encode.SETTINGS).read_text(encoding="utf-8"))
    del settings["rigid"], settings["named"]
    (old.folder / encode.SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    assert len(ShardDataset(encode.encode_set(old, 3))) == 3
    with pytest.raises(ValueError, match=r"rigid = False \(now True\)"):
        encode.encode_set(dataclasses.replace(old, settings=dataclasses.replace(old.settings, rigid=True)), 3)


def test_a_set_stays_good_under_another_decoder(job: encode.EncodingJob, tmp_path: Path) -> None:
    file = read_checkpoint(job.vae)
    hashes = {encoder.encoder_hash(job.vae)}
    for part in ("decoder", "encoder"):
        changed = {k: t + 1 if k.startswith(part) else t for k, t in file.part("vae").items()}
        facts = {"spec": ModelSpec("image"), "configs": file.configs}
        hashes.add(encoder.encoder_hash(write_checkpoint(tmp_path / part, {"vae": changed}, **facts)))
        assert len(hashes) == {"decoder": 1, "encoder": 2}[part]


@pytest.mark.parametrize(("role", "frames"), [("image", 1), ("base", 9)])
def test_other_roles(job: encode.EncodingJob, tmp_path: Path, role: encode.SetRole, frames: int) -> None:
    settings = dataclasses.replace(job.settings, role=role, split="test")
    data = ShardDataset(encode.encode_set(fresh(job, tmp_path / role, settings=settings), 2))
    assert data[1]["mean"].shape == (frames, 4, 16, 16) and data.index["split"] == "test"


def test_two_processes_give_the_same(
    job: encode.EncodingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "_run", lambda job, todo, workers: map(encode._work, reversed(todo)))
    encode._start_worker(fresh(job, tmp_path / "tsr"))
    backwards = ShardDataset(encode.encode_set(fresh(job, tmp_path / "tsr"), 8, workers=2))
    monkeypatch.undo()
    monkeypatch.setattr(encode, "CaptionTokenizer", OneToken)
    forwards = ShardDataset(encode.encode_set(fresh(job, tmp_path / "one"), 8))
    torch.testing.assert_close(backwards[6]["mean"], forwards[6]["mean"], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["base", "--moved", "0.95"], "--moved is 0.95; a share from 0 to 0.9 was expected"),
        (["image", "--moved", "0.1"], "--moved applies to clips; the single pictures"),
        (["image", "--rigid"], "--rigid applies to clips; the single pictures"),
        (["base", "--named", "0.3"], "--named applies to single pictures"),
        (["image", "--named", "1.5"], "--named is 1.5; a share from 0 to 1 was expected"),
    ],
)
def test_a_share_of_motions_that_cannot_be_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        encode.main([*arguments, "--vae", "absent.safetensors", "--home", str(tmp_path)])
    assert told in capsys.readouterr().err


def test_names_say_role_and_split() -> None:
    assert encode.parse_name("base") == ("base", "train")
    assert encode.parse_name("tsr-small-test") == ("tsr", "test")
    assert encode.parse_name("base-validation") == ("base", "validation")
    with pytest.raises(ValueError, match="starts with none of image, base, tsr"):
        encode.parse_name("video")


def test_missing_shards_are_named(job: encode.EncodingJob, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a set was expected") as caught:
        ShardDataset(tmp_path)
    assert f"python -m mini.world.encode {tmp_path.name}" in explain(caught.value)
    folder = encode.encode_set(fresh(job, tmp_path / "tsr"), 5)
    shard_path(folder, 1).unlink()
    with pytest.raises(ValueError, match=r"lacks shards \[1\] of 2"):
        ShardDataset(folder)


def test_tokens_have_the_hosts_form(job: encode.EncodingJob) -> None:
    tokenizer = CaptionTokenizer(job.tokenizer)
    tokens = tokenizer(["", "an owl"])
    assert tokens.shape == (2, CONTEXT_LENGTH) and tokens.dtype == torch.int32
    assert tokens[0].tolist() == [START_TOKEN, *[END_TOKEN] * (CONTEXT_LENGTH - 1)]
    assert tokens[1, 0] == START_TOKEN and (tokens[1, 6:] == END_TOKEN).all() and (tokens[1, 1:6] < 80).all()
    with pytest.raises(ValueError, match="weights"):
        tokenizer(["an owl (flying:1.2)"])
    with pytest.raises(ValueError, match="at most 75"):
        tokenizer(["owl" * 40])


def test_tokens_are_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known ids of CLIP's vocabulary, if there is a ComfyUI."""
    try:
        folder = paths.tokenizer_folder(paths.home_folder())
    except ValueError as missing:
        pytest.skip(str(missing))
    tokens = CaptionTokenizer(folder)(["a horse galloping"])[0].tolist()
    assert tokens[:3] == [START_TOKEN, 320, 4558] and tokens[5:] == [END_TOKEN] * (CONTEXT_LENGTH - 5)
