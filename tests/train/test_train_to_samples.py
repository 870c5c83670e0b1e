"""From 17-frame clips to 17-frame samples: the length of the paper's Tables 2 to 4, with the config as it is."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from microcinema_core.files.checkpoint import read_checkpoint
from microcinema_core.metrics.protocol import __main__ as protocol
from microcinema_core.train import loop
from microcinema_core.train.config import parse
from tests.mini.test_data_encode import write_tokenizer
from tests.train.clip_world import table, write_clips, write_home


def test_the_length_of_the_clips_is_that_of_the_model_and_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path))
    write_home(tmp_path)
    write_clips(tmp_path / "data" / "long", 17, [2.0])
    loop.run(parse(table("base", data={"folder": "long", "test_folder": "long", "batch": 2})))
    base = tmp_path / "runs/my_base/my_base.safetensors"
    assert read_checkpoint(base, expect_roles=("base",)).spec.frames == 17

    write_tokenizer(tmp_path / "tokenizer")
    out = tmp_path / "out"
    assert protocol.main(["ucf101", "prompts", str(out), "--count", "1"]) == 0
    files = ["--base", str(base), "--encoders", str(tmp_path / "files/tiny_image.safetensors")]
    small = [
        "--tokenizer",
        str(tmp_path / "tokenizer"),
        "--size",
        "64x64",
        "--steps",
        "2",
        "--image-size",
        "64x64",
        "--image-steps",
        "2",
    ]
    assert protocol.main(["ucf101", "sample", str(out), *files, *small]) == 0
    with av.open(str(out / "00000.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 17
