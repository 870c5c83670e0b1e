"""CLIP vision's features of pictures in data sets: what is stored for which clips, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from devtools.check import tiny
from devtools.check.crafter_files import CLIP_WIDTH
from microcinema_core.data.videos import encode, sets
from microcinema_core.data.videos.decode import frames_at
from microcinema_core.data.videos.sources import scan
from microcinema_core.data.videos.vision import PictureEncoder
from tests.data.prepare_world import World, all_sets

for library in ("diffusers", "transformers", "skimage", "pyarrow", "matplotlib"):
    pytest.importorskip(library)

SMALL = {
    "hidden_size": CLIP_WIDTH, "num_attention_heads": 16, "num_hidden_layers": 2, "intermediate_size": 64,
    "hidden_act": "gelu", "image_size": 28, "patch_size": 14, "projection_dim": 8,
}  # fmt: skip
"""CLIP vision with the width of ViT-H."""


def write_vision(path: Path, seed: int = 4, **changes: Any) -> Path:
    """Write a small random CLIP vision under the keys of CLIP-ViT-H-fp16.safetensors."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.device("meta"):
        net = CLIPVisionModelWithProjection(CLIPVisionConfig(**{**SMALL, **changes}))
    weights = {key: value.half() for key, value in tiny.random_weights(net, seed).items()}
    weights["vision_model.embeddings.position_ids"] = torch.arange(5)[None]  # older files hold it
    save_file(weights, path)
    return path


def test_base_clips_hold_the_features_of_their_centre_frame(world: World, tmp_path: Path) -> None:
    vision = write_vision(tmp_path / "vision.safetensors")
    out = tmp_path / "out"
    world.run(out, "--clip-vision", str(vision), "--rounds", "1")
    found, encoder = all_sets(out), PictureEncoder(vision)
    videos = {video.id: video for video in scan(world.clips, missing_caption="empty")[0]}
    for name, data in found.items():
        row, item = sets.read_set(out / name)[-1], data[len(data) - 1]
        if name.startswith("tsr"):
            assert "vision" not in item and data.index["clip_vision"] is None
            continue
        assert data.index["clip_vision"] == "vision.safetensors"
        frames = frames_at(videos[row["video"]], row["pts"], size=(64, 64))
        torch.testing.assert_close(item["vision"], encoder.features(frames[1:2])[0], atol=2e-2, rtol=2e-3)
        grey = torch.full((1, 3, 100, 60), 128, dtype=torch.uint8)
        torch.testing.assert_close(data.grey, encoder.features(grey)[0], atol=2e-2, rtol=2e-3)
        assert item["vision"].shape == (5, CLIP_WIDTH) and (item["vision"] - data.grey).abs().max() > 0.1


def test_another_model_encodes_again_and_the_same_one_does_not(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, first = tmp_path / "out", write_vision(tmp_path / "first.safetensors")
    world.run(out, "--clip-vision", str(first), "--rounds", "1")
    with monkeypatch.context() as patch:
        patch.setattr(encode, "encode_clip", None)
        world.run(out, "--clip-vision", str(first), "--rounds", "1")
    windows = {path: path.stat().st_mtime_ns for path in out.glob("tsr*/*/*.safetensors")}
    before = all_sets(out)["base/64x64"][0]["vision"]
    world.run(out, "--clip-vision", str(write_vision(tmp_path / "second.safetensors", 5)), "--rounds", "1")
    data = all_sets(out)["base/64x64"]
    assert (data[0]["vision"] - before).abs().max() > 0.1
    shards = [path for path in windows if path.stem != "empty"]
    assert shards and all(path.stat().st_mtime_ns == windows[path] for path in shards), (
        "windows hold no features"
    )
    world.run(out)
    data = all_sets(out)["base/64x64"]
    assert "vision" not in data[0]
    with pytest.raises(ValueError, match="mid grey: encode the set again"):
        data.grey  # noqa: B018


@pytest.mark.parametrize(
    "kind", ["absent", "another width", "a text encoder", "half of it", "no positions", "no patches"]
)
def test_another_file_is_refused_in_a_sentence(
    kind: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vision.safetensors"
    message = "CLIP vision ViT-H was expected"
    if kind == "another width":
        write_vision(path, hidden_size=1024)
    elif kind == "a text encoder":
        save_file({"text_model.embeddings.token_embedding.weight": torch.zeros(8, 8)}, path)
    elif kind.startswith("no "):
        key = {"no positions": "position_embedding", "no patches": "patch_embedding"}[kind]
        with safe_open(write_vision(path), "pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        name = f"vision_model.embeddings.{key}.weight"
        held[name] = held[name][:0].clone() if kind == "no positions" else held[name][..., :0].clone()
        save_file(held, path)
    elif kind == "half of it":
        with safe_open(write_vision(path), "pt") as file:
            kept = {key: file.get_tensor(key) for key in file.keys() if "layers.1.mlp" not in key}  # noqa: SIM118
        save_file(kept, path)
        message = "the CLIP vision model of vision.safetensors: 4 missing keys"
    world.run(tmp_path / "out", "--clip-vision", str(path), code=2)
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert (tmp_path / "out").exists() == (kind == "half of it"), "told before any video is scored"


def test_the_index_is_plain_json(world: World, tmp_path: Path) -> None:
    world.run(tmp_path / "out")
    [path, *_] = (tmp_path / "out").glob("base/*/index.json")
    assert json.loads(path.read_text())["clip_vision"] is None
