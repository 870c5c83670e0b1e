"""MicroCinema files: reading returns what was written, and every invalid file gives a one-sentence error."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from microcinema_core.files.checkpoint import load_strict, read_checkpoint, write_checkpoint
from microcinema_core.model_spec import ModelSpec, SamplerDefaults, WindowShape

PARTS = {"unet": {"a.weight": torch.arange(6.0).reshape(2, 3)}, "appearnet": {"b": torch.tensor([1, 2])}}
CONFIGS = {"unet": {"in_channels": 8}, "appearnet": {"injection": "spade"}}


def write(path: Path, **changes: object) -> Path:
    arguments = {"parts": PARTS, "role": "base", "configs": CONFIGS, "lambda_": 0.03, "fps": 2.0, "frames": 9}
    arguments |= changes
    parts = arguments.pop("parts")
    fields = {f.name for f in dataclasses.fields(ModelSpec)}
    spec = ModelSpec(**{name: arguments.pop(name) for name in fields & arguments.keys()})  # type: ignore[arg-type]
    return write_checkpoint(path, parts, spec=spec, **arguments)  # type: ignore[arg-type]


def sd_file(path: Path, width: int, extra: tuple[str, ...] = ()) -> Path:
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    save_file({name: torch.zeros(4, width) for name in (key, *extra)}, str(path))
    return path


def sentence(path: Path, **arguments: object) -> str:
    with pytest.raises(ValueError) as caught:
        read_checkpoint(path, **arguments)  # type: ignore[arg-type]
    text = str(caught.value)
    assert path.name in text and "\n" not in text
    return text


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = write(
        tmp_path / "new folder" / "x.safetensors",
        dtype=torch.float32,
        extra_metadata={"modelspec.license": "L"},
    )
    checkpoint = read_checkpoint(path, expect_roles=("base", "tsr"))
    torch.testing.assert_close(checkpoint.part("unet")["a.weight"], PARTS["unet"]["a.weight"])
    assert checkpoint.part("appearnet")["b"].dtype == torch.int64
    assert checkpoint.configs == CONFIGS
    assert checkpoint.spec == ModelSpec("base", 0.03, 2.0, 9, "eps")
    assert checkpoint.metadata["modelspec.license"] == "L"
    assert checkpoint.metadata["modelspec.sai_model_spec"] == "1.0.0"
    assert [entry.name for entry in path.parent.iterdir()] == ["x.safetensors"]


def test_sampler_settings_and_betas_come_back() -> None:
    """Entries that only some weights need are left out of other files, which older versions read too."""
    plain = ModelSpec("base", 0.03, 2.0, 9)
    assert not {"microcinema.betas", "microcinema.sampling", "microcinema.window"} & set(plain.to_metadata())
    settings = SamplerDefaults(steps=2, cfg=2.0, sampler="ddim", scheduler="simple", gamma=0.065)
    spec = ModelSpec("base", 0.03, 2.0, 9, betas="linear", sampling=settings, window=WindowShape(5, 3))
    assert ModelSpec.from_metadata(spec.to_metadata()) == spec
    with pytest.raises(ValueError, match="steps is 0"):
        SamplerDefaults(steps=0)


def test_keys_carry_the_stable_diffusion_prefixes(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert set(load_file(write(tmp_path / "x.safetensors"))) == {
        "model.diffusion_model.a.weight",
        "appearnet.b",
    }
    single = write(tmp_path / "u.safetensors", role="unet", parts={"unet": PARTS["unet"]})
    assert set(load_file(single)) == {"a.weight"}
    assert read_checkpoint(single).part("unet").keys() == {"a.weight"}


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "film"},
        {"prediction": "x0"},
        {"parts": {"clip": {}}},
        {"parts": {}},
        {"configs": {}},
        {"role": "unet"},
    ],
)
def test_arguments_are_checked(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ValueError, match=r"unknown|holds that network only|no configuration"):
        write(tmp_path / "x.safetensors", **changes)
    assert not (tmp_path / "x.safetensors").exists()


def test_another_role_is_named(tmp_path: Path) -> None:
    text = sentence(write(tmp_path / "t.safetensors", role="tsr"), expect_roles=("base",))
    assert "'tsr'" in text and "'base'" in text


def test_an_absent_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no vae in this file of role 'base', which holds: appearnet, unet"):
        read_checkpoint(write(tmp_path / "x.safetensors")).part("vae")


@pytest.mark.parametrize(("width", "kind"), [(768, "1.x"), (1024, "2.x")])
def test_a_stable_diffusion_file_is_sent_to_inflate(tmp_path: Path, width: int, kind: str) -> None:
    text = sentence(sd_file(tmp_path / "sd.safetensors", width))
    assert f"Stable Diffusion {kind}" in text and "MicroCinema Inflate" in text


def test_an_sdxl_file_is_not(tmp_path: Path) -> None:
    text = sentence(sd_file(tmp_path / "xl.safetensors", 2048, ("conditioner.embedders.1.model.x",)))
    assert "Stable Diffusion XL" in text and "Inflate" not in text


@pytest.mark.parametrize("keep", [4, 40, -8])
def test_a_truncated_file(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    assert any(word in sentence(path) for word in ("cut short", "no weights", "no safetensors file"))


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_is_refused_unread(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "x.safetensors"
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=not legacy)
    assert "pickle" in sentence(path)


@pytest.mark.parametrize(
    "text", ["", "hi", "<html>Not found, sorry: the file was moved</html>", '{"a": 1, "b": 2}']
)
def test_a_renamed_text_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text(text)
    assert any(word in sentence(path) for word in ("text file", "no weights"))


def test_an_absent_file(tmp_path: Path) -> None:
    assert "no such file" in sentence(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("format", "2", "update the node pack"),
        ("config", "{", "unreadable"),
        ("frames", "many", "unreadable"),
        ("role", "film", "unknown"),
        ("lambda", None, "missing"),
    ],
)
def test_broken_metadata(tmp_path: Path, entry: str, value: str | None, words: str) -> None:
    metadata = {
        "microcinema.format": "1",
        "microcinema.role": "base",
        "microcinema.config": json.dumps(CONFIGS),
        "microcinema.lambda": "0.03",
        "microcinema.fps": "2",
        "microcinema.frames": "9",
        f"microcinema.{entry}": value,
    }
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1)}, str(path), metadata={k: v for k, v in metadata.items() if v is not None})
    assert words in sentence(path)


def test_keys_of_no_network_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors")
    tensors = {f"stranger.{i}": torch.zeros(1) for i in range(7)}
    save_file(tensors, str(path), metadata=read_checkpoint(path).metadata)
    text = sentence(path)
    assert "7 unexpected keys" in text and "stranger.0" in text and "3 more" in text


def test_strict_loading_names_the_keys() -> None:
    module = nn.Linear(2, 3)
    load_strict(module, {"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "the net")
    assert module.weight.sum() == 6
    with pytest.raises(ValueError, match="the net: 1 missing key: bias; 1 unexpected key: offset"):
        load_strict(module, {"weight": torch.ones(3, 2), "offset": torch.ones(3)}, "the net")
    with pytest.raises(ValueError, match=r"1 misshapen key: weight \(2, 3\) for \(3, 2\)"):
        load_strict(module, {"weight": torch.ones(2, 3), "bias": torch.ones(3)}, "the net")


def test_a_network_can_live_in_the_mapped_file(tmp_path: Path) -> None:
    """Weights are copied only to change their precision, and writes do not reach the file."""
    path = write(tmp_path / "base.safetensors", dtype=torch.float32)
    taken = {
        "weight": read_checkpoint(path).part("unet")["a.weight"],
        "bias": torch.zeros(2, dtype=torch.float16),
    }
    module = nn.Linear(3, 2)
    load_strict(module, taken, "the net", assign=True)
    assert module.weight.data_ptr() == taken["weight"].data_ptr()
    assert module.bias.dtype == torch.float32 and module.weight.requires_grad
    with torch.no_grad():
        module.weight.add_(1)
    assert torch.equal(read_checkpoint(path).part("unet")["a.weight"], PARTS["unet"]["a.weight"])
    copied = nn.Linear(3, 2)
    load_strict(copied, taken, "the net")
    assert copied.weight.data_ptr() != taken["weight"].data_ptr()


def test_only_words_that_were_learnt_are_stored(tmp_path: Path) -> None:
    key = "text_model.embeddings.token_embedding.weight"
    weight = torch.zeros(50, 4)
    weight[[3, 17]] = torch.randn(2, 4)
    path = write_checkpoint(
        tmp_path / "t.safetensors",
        {"text": {key: weight, "other": torch.ones(2)}},
        spec=ModelSpec("image"),
        configs={"text": {}},
        dtype=torch.float32,
    )
    read = read_checkpoint(path).part("text")
    assert set(read) == {key, "other"} and torch.equal(read[key], weight)
    assert sum(t.numel() for t in load_file(path).values()) < 20


@pytest.mark.parametrize(
    ("key", "value"), [("fps", "24"), ("role", "image"), ("lambda", "x"), ("terminal", "sd")]
)
def test_entries_without_the_prefix_are_others(tmp_path: Path, key: str, value: str) -> None:
    """Metadata of other tools may have any name; only `microcinema.` entries describe the model."""
    plain = read_checkpoint(write(tmp_path / "a.safetensors")).spec
    for number in range(6):  # safetensors writes metadata in any order
        path = write(tmp_path / f"{number}.safetensors", extra_metadata={key: value})
        assert read_checkpoint(path).spec == plain
