"""The command line of the paper's protocols: what it refuses and when, its help, and which texts and sizes it reads."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from devtools.check.stable_diffusion import write_stable_diffusion
from microcinema_core.metrics import __main__ as metrics
from microcinema_core.metrics.figures import Figure
from microcinema_core.metrics.protocol import __main__ as command
from microcinema_core.metrics.protocol.encoders import drawn_size, load_surroundings
from microcinema_core.metrics.protocol.paper import beside_the_paper
from microcinema_core.metrics.protocol.parser import build_parser
from microcinema_core.metrics.protocol.prompts import Prompt, msrvtt_prompts, ucf101_prompts, write_prompts
from tests.core.metric_world import TinyI3D, no_processes, write_script, write_set
from tests.core.protocol_world import frames_of, options_without_default, sampling, write_models

SENTENCES = [{"video_id": f"video{i}", "caption": f"take {i}"} for i in range(12)]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("family"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A list of three samples."""
    write_prompts(tmp_path / "out", [Prompt(f"{i:05d}.mp4", f"text {i}", i) for i in range(3)])
    return tmp_path / "out"


@pytest.fixture
def msrvtt(tmp_path: Path) -> Path:
    path = tmp_path / "videodatainfo.json"
    path.write_text(json.dumps({"sentences": SENTENCES}))
    return path


def captions(path: Path, texts: list[str]) -> str:
    rows = [{"file_name": f"{i:05d}.png", "text": text} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def refused(arguments: list[str], capsys: Captured) -> str:
    """Return the one sentence with which a command ends."""
    capsys.readouterr()
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_folder_to_balance_by_must_have_videos_of_ucf101(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "else").mkdir()
    for name in ("holiday.avi", "v_Unknown_g01_c01.avi"):
        (tmp_path / "else" / name).touch()
    for folder, told in (
        ("absent", "no such folder"),
        ("else", "no file named as in UCF-101"),
        ("else/holiday.avi", "is a file"),
    ):
        said = refused(
            ["ucf101", "prompts", str(tmp_path / "out"), "--balance", str(tmp_path / folder)], capsys
        )
        assert told in said and f"--balance {tmp_path / folder}" in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="at least one is needed"):
        ucf101_prompts(3, videos={})


@pytest.mark.parametrize("seed", [-5, 2**64 - 11, 2**64])
def test_seeds_that_no_sampler_takes_are_refused_with_the_list(
    seed: int, msrvtt: Path, tmp_path: Path, capsys: Captured
) -> None:
    for benchmark, more in (("ucf101", ["--count", "12"]), ("msrvtt", ["--json", str(msrvtt)])):
        said = refused([benchmark, "prompts", str(tmp_path / "out"), f"--seed={seed}", *more], capsys)
        assert f"is {seed}; expected a whole number from 0 to {2**64 - 12}" in said
    assert not (tmp_path / "out").exists()
    assert ucf101_prompts(12, seed=2**64 - 12)[-1].seed == 2**64 - 1


def test_the_largest_seed_draws_a_centre_frame_too(models: Path, tmp_path: Path) -> None:
    write_prompts(tmp_path, [Prompt("00000.mp4", "a", 2**64 - 1)])
    assert command.main(sampling(models, tmp_path, "--only-centres")) == 0


def test_fewer_videos_are_drawn_uniformly_and_always_the_same(msrvtt: Path) -> None:
    def chosen(seed: int) -> list[str]:
        return [prompt.source for prompt in msrvtt_prompts(msrvtt, count=4, seed=seed)]

    drawn = [chosen(seed) for seed in range(40)]
    assert drawn == [chosen(seed) for seed in range(40)]
    assert {name for names in drawn for name in names} == {f"video{i}" for i in range(12)}
    assert all(names == sorted(set(names), key=lambda name: int(name[5:])) for names in drawn)
    with pytest.raises(
        ValueError, match=r"--count is 13, and .* has 12 captioned videos of the split 'test'"
    ):
        msrvtt_prompts(msrvtt, count=13)


@pytest.mark.parametrize(
    ("benchmark", "option"),
    [("ucf101", "--json"), ("ucf101", "--split"), ("msrvtt", "--template"), ("msrvtt", "--balance")],
)
def test_a_benchmark_has_no_options_of_the_other(
    benchmark: str, option: str, msrvtt: Path, tmp_path: Path, capsys: Captured
) -> None:
    own = ["--json", str(msrvtt)] if benchmark == "msrvtt" else []
    with pytest.raises(SystemExit):
        command.main([benchmark, "prompts", str(tmp_path / "out"), *own, option, "test"])
    assert f"unrecognized arguments: {option} test" in capsys.readouterr().err


def test_the_help_says_what_holds_without_an_option() -> None:
    for benchmark in subcommands(build_parser("")).values():
        actions = subcommands(benchmark)
        lacking = {name: options_without_default(actions[name]) for name in ("prompts", "sample", "captions")}
        assert lacking == {"prompts": set(), "sample": {"--base", "--tsr"}, "captions": set()}


def subcommands(parser: Any) -> dict[str, Any]:
    return next(one for one in parser._actions if isinstance(one.choices, dict)).choices


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--tsr", "{}/tiny_tsr.safetensors"], "--tsr does nothing without --rounds"),
        (["--tsr-cfg", "2"], "--tsr-cfg does nothing without --rounds"),
        (["--image-steps", "2", "--centres", "{}"], "--image-steps does nothing with --centres"),
        (["--image-size", "64x64", "--centres", "{}"], "--image-size does nothing with --centres"),
        (["--only-centres", "--centres", "{}"], "--only-centres draws new centre frames, and --centres names existing"),
        (["--fps", "0"], "--fps is 0.0; expected 0.001 to 1000"),
        (["--cfg", "nan"], "--cfg is nan; expected 0 to 100"),
        (["--gamma", "1.5"], "--gamma is 1.5; expected 0 to 1"),
        (["--image-cfg", "-1"], "--image-cfg is -1.0; expected"),
        (["--size", "320"], "--size is 320; expected WIDTHxHEIGHT"),
        (["--size", "64x64,128x128"], "expected WIDTHxHEIGHT"),
        (["--image-size", "100x64"], "--image-size is 100x64; expected"),
        (["--part", "²/3"], "expected K/N"),
        (["--base", "{}"], "this is a folder; name the file in it"),
        (["--captions", "{}"], "this is a folder; name the file in it"),
        (["--captions", "{}/absent"], "there is no such file"),
        (["--tokenizer", "/"], "holds no tokenizer"),
    ],
)  # fmt: skip
def test_options_that_are_impossible_or_do_nothing_are_refused(
    models: Path, out: Path, more: list[str], words: str, capsys: Captured
) -> None:
    assert words in refused(sampling(models, out, *(text.format(models) for text in more)), capsys)
    assert not list(out.glob("*/")) and not (out / "run.json").exists()


def test_one_command_line_draws_centre_frames_and_then_makes_videos(models: Path, out: Path) -> None:
    options = ["--captions", captions(out.parent / "c.jsonl", ["a", "b", "c"]), "--fps", "4", "--cfg", "2"]
    assert command.main(sampling(models, out, *options, "--only-centres")) == 0
    assert not list(out.glob("*.mp4")) and len(list(out.glob("centres/*.png"))) == 3
    assert command.main(sampling(models, out, *options, "--part", "1/3")) == 0
    assert (out / "00000.mp4").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["msrvtt", "--fvd", "--clip-model", "docs"], "--clip-model does nothing without --clipsim; add it"),
        (["ucf101", "--clip-model", "docs"], "--clip-model does nothing without --clipsim; add it"),
        (["msrvtt", "--motion", "--i3d", "nowhere"], "--i3d does nothing without a metric of I3D"),
    ],
)
def test_scores_refuse_networks_that_no_metric_uses(
    more: list[str], words: str, tmp_path: Path, capsys: Captured
) -> None:
    benchmark, *options = more
    assert words in refused([benchmark, "score", str(tmp_path), str(tmp_path), *options], capsys)


def test_a_score_without_one_of_its_metrics_exits_with_1(tmp_path: Path, capsys: Captured) -> None:
    sets = [str(write_set(tmp_path / name, 3, first_scene=scene)) for name, scene in (("a", 0), ("b", 9))]
    i3d = str(write_script(TinyI3D(), tmp_path / "i3d.pt"))
    options = ["--fvd", "--kvd", "--key", "folder", "--resamples", "5", "--cache", str(tmp_path / "cache")]
    with no_processes():
        assert command.main(["msrvtt", "score", *sets, "--i3d", i3d, *options]) == 1
    printed = capsys.readouterr().out
    assert "KVD cannot be computed" in printed and "| FVD | 377.40 | " in printed


def test_captions_are_there_for_all_samples_before_the_first(
    models: Path, out: Path, tmp_path: Path, capsys: Captured
) -> None:
    for texts, told in (([], "00000.mp4, and 3 of 3"), (["a"], "00001.mp4, and 2 of 3")):
        given = captions(tmp_path / "c.jsonl", texts)
        said = refused(sampling(models, out, "--captions", given), capsys)
        assert f"has no caption of {told} are missing; run `captions`" in said
    assert [path.name for path in out.iterdir()] == ["metadata.jsonl"]


def test_centre_frames_are_there_for_all_samples_before_the_first(
    models: Path, out: Path, tmp_path: Path, capsys: Captured
) -> None:
    centres = tmp_path / "given"
    centres.mkdir()
    for count, told in ((0, "00000.png, and 3 of 3"), (1, "00001.png, and 2 of 3")):
        for number in range(count):
            Image.new("RGB", (64, 64)).save(centres / f"{number:05d}.webp")
        said = refused(sampling(models, out, "--centres", str(centres)), capsys)
        assert f"has no picture {told} are missing; add them, or leave out --centres" in said
    assert [path.name for path in out.iterdir()] == ["metadata.jsonl"]
    assert command.main(sampling(models, out, "--centres", str(centres), "--part", "1/3")) == 0


def test_texts_are_literal_and_long_ones_are_cut_with_a_note(
    models: Path, out: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["a man (left) plays", r"back\slash :1.2)", "a " * 80]
    with caplog.at_level("INFO"):
        given = captions(tmp_path / "c.jsonl", texts)
        assert command.main(sampling(models, out, "--captions", given)) == 0
    assert len(list(out.glob("*.mp4"))) == 3
    assert "1 text longer than 75 tokens: the rest is cut off" in caplog.text
    around = load_surroundings(models / "tiny_image.safetensors", models / "tokenizer", "cpu")
    long, cut, other = around.contexts(["a " * 80, "a " * 75, "a " * 74])
    assert torch.equal(long, cut) and not torch.equal(long, other)


@pytest.mark.parametrize(("asked", "drawn"), [([], (128, 128)), (["--image-size", "96x64"], (96, 64))])
def test_centre_frames_are_drawn_at_the_image_models_size(
    models: Path, tmp_path: Path, asked: list[str], drawn: tuple[int, int]
) -> None:
    write_prompts(tmp_path, [Prompt("00000.mp4", "a", 0)])
    arguments = sampling(models, tmp_path)
    place = arguments.index("--image-size")
    assert command.main([*arguments[:place], *arguments[place + 2 :], *asked]) == 0
    assert Image.open(tmp_path / "centres" / "00000.png").size == drawn
    assert frames_of(tmp_path / "00000.mp4").shape == (5, 64, 64, 3)


def test_the_trained_size_of_stable_diffusion_is_known_by_what_it_predicts(tmp_path: Path) -> None:
    write_stable_diffusion(tmp_path / "sd.safetensors", "sd2", unet={})
    sizes: list[Any] = [
        drawn_size(tmp_path / "sd.safetensors", SimpleNamespace(spec=SimpleNamespace(prediction=one)))  # type: ignore[arg-type]
        for one in ("eps", "v")
    ]
    assert sizes == [(512, 512), (768, 768)]


def test_a_folder_where_a_file_is_written_is_one_sentence(
    models: Path, tmp_path: Path, capsys: Captured
) -> None:
    made = ["ucf101", "captions", str(tmp_path), str(tmp_path), "--model", str(models)]
    assert "is a folder; name the file to write" in refused(made, capsys)
    (tmp_path / "file").touch()
    assert "is a file; name a folder" in refused(["ucf101", "prompts", str(tmp_path / "file")], capsys)


def test_figures_are_printed_as_in_the_paper() -> None:
    figures = [
        Figure(name, value, value - 10, value + 10, None, "", 2, 2, 2, "")
        for name, value in (("FVD", 20900.4), ("IS", 27.9), ("KVD", 3.0))
    ]
    printed = beside_the_paper("ucf101", figures)
    assert "| FVD | 342.86 | 20900.40 [20890.40, 20910.40], 2 samples |" in printed
    assert "| IS | 37.46 | 27.90 [17.90, 37.90], 2 samples |" in printed
    assert "| 589.59 / 27.90 |" in printed and "| 336.40 / 32.07 |" in printed and "| 692 / 18.5 |" in printed
    clipsim = beside_the_paper("msrvtt", [Figure("CLIPSIM", 0.3, 0.25, 0.35, None, "", 2, 2, 2, "")])
    assert "| FVD | 377.40 |  |\n| CLIPSIM | 0.2967 | 0.3000 [0.2500, 0.3500], 2 samples |" in clipsim


@pytest.mark.parametrize("main", [metrics.main, lambda given: command.main(["ucf101", "score", *given])])
def test_a_library_that_is_not_there_is_named_with_the_metrics_extra(
    main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main([str(tmp_path), str(tmp_path), "--fvd", "--cache", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("tqdm is not installed: pip install '.[metrics]'") and said.count("\n") == 1
