"""CLIP's tokenizer and CLIP models from folders that hold something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from microcinema_core.data.tokens import CaptionTokenizer, choose_tokenizer
from microcinema_core.data.videos.encode import Encoders
from microcinema_core.data.videos.score import CLIPScorer, clip_digest
from tests.data.test_videos_choose import clip_model
from tests.mini.test_data_encode import write_tokenizer

GPT = json.dumps({"<|endoftext|>": 0, **{letter: number for number, letter in enumerate("abcdefgh", 1)}})
"""A vocabulary of byte pairs as GPT-2's, in which no token ends a word."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_model(tmp_path_factory.mktemp("models") / "clip")


def damaged(folder: Path, kind: str) -> Path:
    if kind == "nowhere":
        return folder
    write_tokenizer(folder)
    if kind in ("no vocab", "empty"):
        (folder / "vocab.json").unlink()
    if kind in ("no merges", "empty"):
        (folder / "merges.txt").unlink()
    if kind in (GPT, "{}", "[1]", "no JSON"):
        (folder / "vocab.json").write_text(kind)
    return folder


def encoders(folder: Path, clip: Path) -> Encoders:
    networks: Any = SimpleNamespace(vae=torch.nn.Identity(), text=torch.nn.Identity(), padding=0)
    return Encoders(networks, folder)


@pytest.mark.parametrize("load", [lambda folder, clip: CaptionTokenizer(folder), encoders,
                                  lambda folder, clip: CLIPScorer(clip, folder)])  # fmt: skip
@pytest.mark.parametrize("kind", ["nowhere", "empty", "no vocab", "no merges", "{}", "[1]", "no JSON", GPT])
def test_a_folder_without_clips_tokenizer_is_refused(
    load: Callable[[Path, Path], object], kind: str, clip: Path, tmp_path: Path
) -> None:
    """Of a folder without a vocabulary, transformers makes a tokenizer to which every text is unknown tokens."""
    with pytest.raises(
        ValueError, match=r"words holds no tokenizer of CLIP; expected its vocab\.json"
    ) as refusal:
        load(damaged(tmp_path / "words", kind), clip)
    assert "\n" not in str(refusal.value)


def test_the_files_of_any_version_of_transformers_are_read(tmp_path: Path) -> None:
    old = CaptionTokenizer(write_tokenizer(tmp_path / "old"))
    old._clip.save_pretrained(tmp_path / "new")
    assert torch.equal(CaptionTokenizer(tmp_path / "new")(["a cat"]), old(["a cat"]))


def test_the_named_tokenizer_wins_then_the_models_own_then_comfyuis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tmp_path / "host" / "comfy" / "sd1_tokenizer"
    host.parent.mkdir(parents=True)
    for folder in (host, tmp_path / "own", tmp_path / "named"):
        write_tokenizer(folder)
    (tmp_path / "bare").mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "host"))
    assert choose_tokenizer(tmp_path / "named", tmp_path / "own") == tmp_path / "named"
    assert choose_tokenizer(None, tmp_path / "own") == tmp_path / "own"
    assert choose_tokenizer(None, tmp_path / "bare") == choose_tokenizer(None) == host
    (tmp_path / "bare" / "tokenizer.json").write_text("{}")  # as one that another transformers wrote
    assert choose_tokenizer(None, tmp_path / "bare") == host
    with pytest.raises(ValueError, match="bare holds no tokenizer of CLIP"):
        choose_tokenizer(tmp_path / "bare", tmp_path / "own")


def test_a_name_is_not_looked_up_among_downloaded_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.CLIPTokenizer.from_pretrained", None)
    with pytest.raises(ValueError, match="openai/clip holds no tokenizer of CLIP"):
        choose_tokenizer(Path("openai/clip"))


def test_scores_of_another_tokenizer_have_another_digest(clip: Path, tmp_path: Path) -> None:
    one, other = write_tokenizer(tmp_path / "one"), write_tokenizer(tmp_path / "other")
    assert clip_digest(clip, one) == clip_digest(clip, other)
    (other / "merges.txt").write_text("#version: 0.2\na t</w>\n")
    assert clip_digest(clip, one) != clip_digest(clip, other)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("another", "holds a model of the type bert"),
        ("list", "has a config.json that is no JSON object"),
        ("part", "lacks 1 of the model's tensors, such as visual_projection.weight"),
        ("noise", "cannot be loaded"),
    ],
)
def test_a_folder_without_a_whole_clip_model_is_refused(
    kind: str, words: str, clip: Path, tmp_path: Path
) -> None:
    """transformers fills with random numbers what a file lacks."""
    folder = Path(shutil.copytree(clip, tmp_path / "clip"))
    weights, config = folder / "model.safetensors", folder / "config.json"
    if kind == "part":
        tensors = load_file(weights)
        del tensors["visual_projection.weight"]
        save_file(tensors, weights, {"format": "pt"})
    elif kind == "noise":
        weights.write_bytes(b"x" * 1000)
    else:
        config.write_text('{"model_type": "bert"}' if kind == "another" else "[1]")
    with pytest.raises(ValueError, match=f"--clip-model .*clip {words}") as refusal:
        CLIPScorer(folder, write_tokenizer(tmp_path / "words"))
    assert "\n" not in str(refusal.value)
