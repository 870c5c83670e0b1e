"""dev.py: its command line, how it finds ComfyUI and an environment, the vocabulary, the upscaler's conversion."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dev as dev_py
from devtools.run import demo, env
from devtools.run.env import Environment, all_requirements, find_environment
from devtools.run.home import ROOT, Problem, home
from devtools.run.host import Host, find_host
from devtools.run.prompt_words import (
    known_subjects,
    notice,
    read_caption_words,
    read_subjects,
    split_words,
)
from devtools.run.upscaler import HALF, read_ncnn


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    folder = tmp_path / "ComfyUI"
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").write_text("")
    (folder / "comfyui_version.py").write_text('__version__ = "1.2.3"\n')
    (folder / "requirements.txt").write_text("torch\ntorchaudio\neinops # folds\n\n# nothing\nscipy>=1\n")
    return folder


def dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "dev.py"), *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prompt", " "], "--prompt is empty"),
        (["--image", "absent.png"], "no such file"),
        (["--prompt", "python", "--image", "absent.png"], "no such file"),
        (["--seed", "-1"], "--seed is -1"),
        (["--steps", "0"], "--steps is 0"),
        (["--comfyui", "/nonexistent"], "there is no ComfyUI there"),
        (["--venv", "/nonexistent"], "there is no Python environment there"),
        (["--rounds", "3"], "invalid choice"),
    ],
)
def test_wrong_options_end_with_one_sentence(
    arguments: list[str], sentence: str, comfyui: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    result = dev("demo", "--out", str(tmp_path), *arguments)
    assert result.returncode != 0
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_host_finding(comfyui: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_host(str(comfyui)).path == comfyui
    monkeypatch.setenv("COMFYUI_PATH", str(comfyui))
    found = find_host()
    assert (found.path, found.version, found.ours) == (comfyui, "1.2.3", False)
    assert found.requirements() == ["einops", "scipy>=1"]
    with pytest.raises(Problem, match="no ComfyUI there"):
        find_host(str(tmp_path))


def test_the_environment_in_use_is_taken_when_it_satisfies(
    comfyui: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MICROCINEMA_VENV", raising=False)
    host = Host(comfyui, "test", ours=False)
    assert find_environment(host).python == Path(sys.executable)
    (comfyui / "requirements.txt").write_text("a-package-that-is-not-there\n")
    assert "a-package-that-is-not-there" in all_requirements(host)
    with pytest.raises(Problem, match="lacks a-package-that-is-not-there"):
        find_environment(host, sys.prefix)


def test_the_environment_in_use_comes_before_the_one_in_home(
    comfyui: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MICROCINEMA_VENV", raising=False)
    monkeypatch.setattr(env, "_key", lambda requirements: "made")
    made = env.python_in(tmp_path / "home" / "envs" / "made")
    made.parent.mkdir(parents=True)
    made.write_text("")
    (tmp_path / "home" / "envs" / "made" / "ready.json").write_text("{}")
    for lacks, chosen in (([], Path(sys.executable)), (["torch"], made), (None, made)):
        monkeypatch.setattr(env, "_active_environment_lacks", lambda requirements, lacks=lacks: lacks)
        assert find_environment(Host(comfyui, "test", ours=False)).python == chosen


@pytest.mark.parametrize("given", [None, "another"])
def test_no_process_is_become_twice(
    given: str | None, comfyui: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restarts: list[list[str]] = []
    another = Environment(tmp_path / "another" / "python")
    monkeypatch.setenv(env.RESTARTED, "1")
    monkeypatch.setattr(dev_py, "find_environment", lambda host, venv: another)
    monkeypatch.setattr(Environment, "restart_in", lambda self, arguments: restarts.append(arguments))
    monkeypatch.setattr(dev_py.serve, "main", lambda arguments: None)
    arguments = ["--comfyui", str(comfyui), *(["--venv", given] if given else []), "serve"]
    dev_py.run(arguments)
    assert not restarts
    assert env.RESTARTED not in os.environ
    dev_py.run(arguments)
    assert len(restarts) == 1


def test_options_for_comfyui_follow_two_dashes() -> None:
    given = dev_py.parse(["serve", "--no-browser", "--", "--lowvram", "--preview-method", "none"])
    assert given.no_browser and given.options == ["--lowvram", "--preview-method", "none"]
    assert dev_py.parse(["serve"]).options == []


def test_commands_of_the_environment_know_the_host(comfyui: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    code = "import os; print(os.environ['COMFYUI_PATH'])"
    for options in (
        ["--venv", sys.executable, f"--comfyui={comfyui}"],
        [f"--venv={sys.executable}", "--comfyui", str(comfyui)],
    ):
        result = dev(*options, "python", "-c", code)
        assert result.stdout.strip() == str(comfyui), result.stderr


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("odd")])
def test_any_error_of_files_or_values_is_one_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: list[str]) -> None:
        raise error

    monkeypatch.setattr(dev_py, "run", fail)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    assert dev_py.main() == 1
    assert str(error) in capsys.readouterr().err


def test_home_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "new" / "home"))
    assert home() == tmp_path / "new" / "home"
    assert home().is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(Problem, match="set MICROCINEMA_HOME"):
        home()


def test_what_is_no_picture_is_told_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"test_dev\.py, which cannot be read as a picture"):
        demo.check_picture(Path(__file__))
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    demo.check_picture(tmp_path / "one.png")


def test_words_need_not_be_ascii() -> None:
    assert split_words("ünïcode cat's 猫", frozenset({"cat"})) == (["cat"], ["ünïcode", "猫"])
    assert demo._slug("Ünïcode, a 猫!") == "ünïcode-a-猫"
    assert demo._slug("猫" * 100) == "猫" * 40


def test_shipped_workflows_ask_for_what_the_mini_models_know() -> None:
    words = read_caption_words()
    asked = [
        node["inputs"]["text"]
        for file in (ROOT / "workflows" / "api").glob("*.json")
        if '"mini_image.' in (text := file.read_text(encoding="utf-8")) and "sdxl" not in file.name
        for node in json.loads(text).values()
        if node["class_type"] == "CLIPTextEncode"
    ]
    assert any(asked) and not [text for text in asked if split_words(text, words)[1]]


def test_vocabulary() -> None:
    words = frozenset({"horse", "galloping", "cat"})
    assert split_words("A horse, Galloping with a submarine", words) == (
        ["horse", "galloping"],
        ["submarine"],
    )
    assert "has all of it" in notice("a horse galloping", words)
    assert "nothing of it (submarine)" in notice("a submarine", words)
    assert "Not in the mini models' vocabulary: submarine (known: cat)" in notice("cat in a submarine", words)
    assert {"horse", "galloping"} <= read_caption_words()


def test_subjects() -> None:
    shipped = read_subjects()
    assert known_subjects("a horse galloping", shipped) == ["horse"]
    assert known_subjects("a xylograph of", shipped) == []
    assert not shipped & {"a", "the", "of", "on", "moving", "background", "red", "galloping"}
    some = frozenset({"horse", "flying saucer", "saucer"})
    assert known_subjects("A Flying-Saucer over the horse", some) == ["flying saucer", "horse"]
    assert "Subjects: horse. Flags, hearts, buttons and faces come out best" in notice(
        "a horse", frozenset({"horse"}), some
    )
    flags = frozenset({"flag of france"})
    assert notice("a flag of france", frozenset({"flag", "france"}), flags).endswith(
        "Subjects: flag of france."
    )
    assert notice("moving left", frozenset({"moving"}), some).endswith("No known subject is named.")


def test_ncnn_weights_become_the_network_that_wrote_them() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(5, 3, 3, 3, generator=generator).half()
    second = torch.randn(12, 5, 3, 3, generator=generator).half()
    biases = [torch.randn(n, generator=generator) for n in (5, 12)]
    slope = torch.rand(5, generator=generator)
    param = (
        "7767517\n4 4\nInput input 0 1 data\n"
        "Convolution a 1 1 data x 0=5 1=3 4=1 5=1 6=135\nPReLU b 1 1 x y 0=5\n"
        "Convolution c 1 1 y z 0=12 1=3 4=1 5=1 6=540\nPixelShuffle d 1 1 z out 0=2\n"
    )
    data = b""
    for weights, bias, after in ((first, biases[0], slope), (second, biases[1], None)):
        raw = weights.numpy().astype("<f2").tobytes()
        data += struct.pack("<I", HALF) + raw + b"\0" * (-len(raw) % 4) + bias.numpy().astype("<f4").tobytes()
        data += b"" if after is None else after.numpy().astype("<f4").tobytes()
    read = {key: torch.from_numpy(np.array(value)).float() for key, value in read_ncnn(param, data).items()}
    torch.testing.assert_close(read["body.0.weight"], first.float())
    torch.testing.assert_close(read["body.1.weight"], slope, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(read["body.2.weight"], second.float())
    with pytest.raises(Problem, match="bytes"):
        read_ncnn(param, data + b"\0\0\0\0")
