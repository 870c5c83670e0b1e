"""The paper's protocols: prompt lists, samples by tiny models, and a run from end to end."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from devtools.check.stable_diffusion import write_stable_diffusion
from devtools.check.tiny import unet_weights
from microcinema_core.config import AppearNetConfig, UNetConfig
from microcinema_core.files.checkpoint import read_checkpoint, write_checkpoint
from microcinema_core.metrics.protocol import __main__ as command
from microcinema_core.metrics.protocol.classes import UCF101
from microcinema_core.metrics.protocol.prompts import (
    EXAMPLE,
    msrvtt_prompts,
    read_prompts,
    read_texts,
    ucf101_prompts,
)
from microcinema_core.model_spec import ModelSpec
from microcinema_core.networks.appearnet import AppearNet
from microcinema_core.networks.unet import UNet3D
from tests.core.metric_world import TinyC3D, TinyI3D, no_processes, write_script, write_set
from tests.core.protocol_world import frames_of, sampling, write_models
from tests.data.test_videos_choose import clip_model
from tests.mini.test_data_encode import write_tokenizer

PAPER = """2 | concatenation | 688.92 / 15.83
2 | addition to the decoder | 589.59 / 27.90
2 | addition to encoder and decoder | 525.02 / 27.25
2 | the same with SPADE | 508.56 / 29.63
Fig. 6 | lambda 0, gamma 0 | 692 / 18.5
Fig. 6 | lambda 0.03, gamma 0.02, the best | 508 / 29.6
3 | SDXL, simple prompts | 374.05 / 29.79
3, 4 | SDXL, captions of LLaVA-1.5 | 336.40 / 32.07
4 | SD 2.1, captions of LLaVA-1.5 | 412.53 / 31.25"""
"""Tables 2 to 4 and section 4.2.2, typed from the paper."""
MSRVTT = {
    "videos": [{"video_id": f"video{i}", "split": "test" if i % 2 else "train"} for i in range(12)],
    "sentences": [
        {"video_id": f"video{i}", "caption": f"take {j} of  {i}"} for i in range(12) for j in range(4)
    ],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("family"))


def test_ucf101_prompts_are_the_papers() -> None:
    prompts = ucf101_prompts(10_000)
    assert len(UCF101) == len(set(UCF101)) == 101
    assert prompts[0].text == "a video of apply eye makeup" and prompts[100].text == "a video of yo yo"
    assert [prompt.seed for prompt in prompts] == list(range(10_000))
    assert len({prompt.file_name for prompt in prompts}) == 10_000
    counts = Counter(prompt.source for prompt in prompts)
    assert set(counts) == set(UCF101) and set(counts.values()) == {99, 100}
    assert ucf101_prompts(2000)[:101] == prompts[:101], "the smaller list is the beginning of the larger one"


def test_classes_may_be_as_frequent_as_in_the_reference(tmp_path: Path) -> None:
    for kind, count in (("Archery", 3), ("YoYo", 1)):
        for number in range(count):
            path = tmp_path / kind / f"v_{kind}_g01_c{number:02d}.avi"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    assert (
        command.main(["ucf101", "prompts", str(tmp_path / "out"), "--count", "9", "--balance", str(tmp_path)])
        == 0
    )
    counts = Counter(prompt.source for prompt in read_prompts(tmp_path / "out"))
    assert counts == {"Archery": 7, "YoYo": 2}


def test_msrvtt_prompts_are_one_caption_of_each_video_of_the_split(tmp_path: Path) -> None:
    path = tmp_path / "videodatainfo.json"
    path.write_text(json.dumps(MSRVTT))
    first = msrvtt_prompts(path, caption="first")
    assert [prompt.source for prompt in first] == [
        "video1",
        "video3",
        "video5",
        "video7",
        "video9",
        "video11",
    ]
    assert [prompt.text for prompt in first] == [f"take 0 of {i}" for i in (1, 3, 5, 7, 9, 11)]
    drawn = [msrvtt_prompts(path, seed=seed) for seed in range(8)]
    assert drawn[0] == msrvtt_prompts(path) and len({prompts[0].text for prompts in drawn}) > 1
    assert len(msrvtt_prompts(path, split="all")) == 12 and len(msrvtt_prompts(path, count=2)) == 2
    path.write_text(json.dumps({"sentences": MSRVTT["sentences"]}))  # the test set's own file has no splits
    assert len(msrvtt_prompts(path)) == 12
    with pytest.raises(ValueError, match="no captioned video of the split 'validate'"):
        path.write_text(json.dumps(MSRVTT))
        msrvtt_prompts(path, split="validate")
    for text in ("[1]", "{}", "no JSON"):
        path.write_text(text)
        with pytest.raises(ValueError, match="is not MSR-VTT's JSON"):
            msrvtt_prompts(path)


def test_a_list_is_not_replaced_by_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["ucf101", "prompts", str(tmp_path), "--count", "3"]) == 0
    assert command.main(["ucf101", "prompts", str(tmp_path), "--count", "3"]) == 0
    assert command.main(["ucf101", "prompts", str(tmp_path), "--count", "4"]) == 2
    assert "holds another list" in capsys.readouterr().err
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "../a.mp4", "text": "", "seed": 0, "source": ""}\n'
    )
    with pytest.raises(ValueError, match="is no prompt list; every line should be like"):
        read_prompts(tmp_path)
    (tmp_path / "metadata.jsonl").write_text(EXAMPLE)
    assert [(one.stem, one.text, one.seed) for one in read_prompts(tmp_path)] == [
        ("00000", "a video of surfing", 0)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"seed": True},
        {"seed": 1.0},
        {"file_name": "00000"},
        {"file_name": ".."},
        {"file_name": ""},
        {"file_name": "a/b.mp4"},
        {"text": None},
        {"source": 3},
        {"prompt": "surfing"},
    ],
)
def test_a_line_that_is_no_sample_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(json.dumps({**json.loads(EXAMPLE), **changes}))
    with pytest.raises(ValueError, match="is no prompt list; every line should be like"):
        read_prompts(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "\x00", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "[1]"]
)
def test_damaged_lists_are_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="is no prompt list"):
        read_prompts(tmp_path)
    with pytest.raises(ValueError, match="is no list of captions"):
        read_texts(path)
    with pytest.raises(ValueError, match="is not MSR-VTT's JSON"):
        msrvtt_prompts(path)


def test_a_list_without_samples_or_with_one_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        read_prompts(tmp_path)
    rows = [
        {"file_name": name, "text": "a", "seed": 0, "source": ""} for name in ("a.mp4", "b.mp4", "a.webm")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="names a 2 times"):
        read_prompts(tmp_path)


def test_samples_made_otherwise_are_not_taken_for_these(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command.main(["ucf101", "prompts", str(out), "--count", "2"])
    assert command.main(sampling(models, out, "--part", "1/2")) == 0
    capsys.readouterr()
    other = write_tokenizer(tmp_path / "tokenizer", "a t</w>")
    for more, words in (
        (["--tokenizer", str(other)], r"tokenizer was \w+ and is \w+"),
        (
            ["--cfg", "3"],
            r"videos in .*base settings was .*'cfg': None.* and is .*'cfg': 3\.0.*give another OUT",
        ),
        (["--size", "128x64"], r"videos in .*size was \[64, 64\] and is \[128, 64\]"),
        (["--image-size", "128x64"], r"centre frames in .*size was \[64, 64\] and is \[128, 64\]"),
        (["--image-steps", "3"], r"image settings was"),
    ):
        assert command.main(sampling(models, out, *more)) == 2
        told = capsys.readouterr().err
        assert re.search(words, told) and told.count("\n") == 1
    assert not (out / "00001.mp4").exists(), "nothing is made before it is refused"
    (out / "run.json").unlink()
    assert command.main(sampling(models, out)) == 2
    assert "no run.json that says how they were made" in capsys.readouterr().err
    (out / "00000.mp4").unlink()
    assert command.main(sampling(models, out, "--cfg", "3")) == 0, "without a sample there is nothing to mix"
    rows = (out / "metadata.jsonl").read_text().replace("a video of", "a film of")
    (out / "metadata.jsonl").write_text(rows)
    assert command.main(sampling(models, out, "--cfg", "3")) == 2
    assert "prompts was" in capsys.readouterr().err


def test_seventeen_frames_are_made_unless_asked_otherwise(models: Path, tmp_path: Path) -> None:
    """The length of the paper's Tables 2 to 4, without interpolation."""
    command.main(["ucf101", "prompts", str(tmp_path), "--count", "1"])
    arguments = sampling(models, tmp_path)
    place = arguments.index("--frames")
    assert command.main(arguments[:place] + arguments[place + 2 :]) == 0
    assert frames_of(tmp_path / "00000.mp4").shape == (17, 64, 64, 3)


def test_samples_do_not_depend_on_processes_and_are_continued(models: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        command.main(["ucf101", "prompts", str(tmp_path / name), "--count", "2"])
    assert command.main(sampling(models, tmp_path / "one")) == 0
    for part in ("2/2", "1/2"):
        assert command.main(sampling(models, tmp_path / "two", "--part", part)) == 0
    names = [f"{i:05d}.mp4" for i in range(2)]
    one, two = ([frames_of(tmp_path / folder / name) for name in names] for folder in ("one", "two"))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert one[0].shape == (5, 64, 64, 3) and not np.array_equal(one[0], one[1])
    before = (tmp_path / "one" / names[0]).stat().st_mtime_ns
    (tmp_path / "one" / names[1]).unlink()
    assert command.main(sampling(models, tmp_path / "one")) == 0
    assert (tmp_path / "one" / names[0]).stat().st_mtime_ns == before
    assert np.array_equal(frames_of(tmp_path / "one" / names[1]), one[1]), "it is made again as it was"


def test_given_centre_frames_and_captions_are_used_and_tsr_adds_frames(models: Path, tmp_path: Path) -> None:
    out, centres = tmp_path / "out", tmp_path / "centres"
    command.main(["ucf101", "prompts", str(out), "--count", "2"])
    assert command.main(sampling(models, out, "--only-centres")) == 0
    assert sorted(path.name for path in (out / "centres").iterdir()) == ["00000.png", "00001.png", "run.json"]
    assert not list(out.glob("*.mp4"))
    centres.mkdir()
    for number, shade in enumerate((40, 200)):
        Image.fromarray(np.full((80, 100, 3), shade, np.uint8)).save(centres / f"{number:05d}.jpg")
    assert command.main(sampling(models, out, "--centres", str(centres))) == 0
    plain = frames_of(out / "00000.mp4")
    for path in out.glob("*.mp4"):
        path.unlink()
    captions = tmp_path / "captions.jsonl"
    captions.write_text(
        "".join(json.dumps({"file_name": f"{i:05d}.png", "text": "other"}) + "\n" for i in range(2))
    )
    tsr = ["--tsr", str(models / "tiny_tsr.safetensors"), "--rounds", "1", "--tsr-steps", "2"]
    tsr += ["--captions", str(captions)]
    assert command.main(sampling(models, out, "--centres", str(centres), *tsr)) == 0
    more = frames_of(out / "00000.mp4")
    assert more.shape == (17, 64, 64, 3)
    assert not np.array_equal(more[::4], plain), "the caption has changed the key frames"
    with av.open(str(out / "00000.mp4")) as container:
        assert container.streams.video[0].average_rate == 8


def test_a_stable_diffusion_checkpoint_surrounds_the_models_too(tmp_path: Path) -> None:
    """The whole file: image model, text encoder and VAE; sampled at the latent size of 320x320 pixels' eighth."""
    config = UNetConfig(
        model_channels=32, channel_mult=(1, 2), num_res_blocks=1, transformer_depth=(0, 1), context_dim=64
    )
    weights = unet_weights(config.as_2d())
    write_stable_diffusion(tmp_path / "sd.safetensors", "sd2", unet=weights)
    net = AppearNetConfig(config, hidden=16)
    parts = {"unet": UNet3D(config).state_dict(), "appearnet": AppearNet(net).state_dict()}
    write_checkpoint(
        tmp_path / "base.safetensors", parts, spec=ModelSpec("base", 0.03, 2, 9),
        configs={"unet": config, "appearnet": net},
    )  # fmt: skip
    assert read_checkpoint(tmp_path / "base.safetensors").spec.role == "base"
    write_tokenizer(tmp_path / "tokenizer")
    command.main(["ucf101", "prompts", str(tmp_path / "out"), "--count", "1"])
    assert command.main(sampling(tmp_path, tmp_path / "out", base="base", image="sd")) == 0
    assert frames_of(tmp_path / "out" / "00000.mp4").shape == (5, 64, 64, 3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--rounds", "1"], "--tsr FILE"),
        (["--part", "3/2"], "expected K/N"),
        (["--size", "100x100"], "multiples of 8"),
        (["--steps", "0"], "--steps is 0"),
        (["--captions", "/nowhere.jsonl"], "no such file"),
        (["--centres", "/nowhere"], "no such folder"),
    ],
)
def test_wrong_sampling_options_end_with_one_sentence(
    models: Path, tmp_path: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(["ucf101", "prompts", str(tmp_path), "--count", "1"])
    assert command.main(sampling(models, tmp_path, *more)) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


def test_from_prompts_to_the_papers_table(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command.main(["ucf101", "prompts", str(out), "--count", "4"])
    assert command.main(sampling(models, out, "--frames", "16")) == 0
    networks = ["--i3d", str(write_script(TinyI3D(), tmp_path / "i3d.pt")), "--resamples", "10"]
    cache = ["--cache", str(tmp_path / "cache")]
    reference = str(write_set(tmp_path / "real", 5))
    classes = ["--fvd", "--is", str(write_script(TinyC3D(), tmp_path / "c3d.pt"))]
    with no_processes():
        assert command.main(["ucf101", "score", reference, str(out), *networks, *cache, *classes]) == 0
        printed = capsys.readouterr().out
        for row in PAPER.splitlines():
            assert f"| {row} | |" in printed
        assert "| FVD | 342.86 | " in printed and "| IS | 37.46 | " in printed and "4 samples |" in printed
        clip = ["--clip-model", str(clip_model(tmp_path / "clip")), "--tokenizer", str(models / "tokenizer")]
        assert command.main(["msrvtt", "score", reference, str(out), *networks, *cache, *clip]) == 0
    printed = capsys.readouterr().out
    assert "| FVD | 377.40 | " in printed and "| CLIPSIM | 0.2967 | " in printed and "KVD" in printed
