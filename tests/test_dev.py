"""dev.py: its command line, finding ComfyUI and an environment, the vocabulary, the upscaler's conversion."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from devtools.env import find_environment, wanted
from devtools.home import ROOT, Problem, home
from devtools.host import Host, find_host
from devtools.upscaler import HALF, read_ncnn
from devtools.vocabulary import notice, read_vocabulary, split_words


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
    host = find_host()
    assert (host.path, host.version, host.ours) == (comfyui, "1.2.3", False)
    assert host.requirements() == ["einops", "scipy>=1"]
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
    assert "a-package-that-is-not-there" in wanted(host)
    with pytest.raises(Problem, match="lacks a-package-that-is-not-there"):
        find_environment(host, sys.prefix)


def test_home_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "new" / "home"))
    assert home() == tmp_path / "new" / "home"
    assert home().is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(Problem, match="set MICROCINEMA_HOME"):
        home()


def test_vocabulary() -> None:
    words = frozenset({"horse", "galloping", "cat"})
    assert split_words("A horse, Galloping with a submarine", words) == (
        ["horse", "galloping"],
        ["submarine"],
    )
    assert "has all of it" in notice("a horse galloping", words)
    assert "nothing of it (submarine)" in notice("a submarine", words)
    assert "Not in the mini models' vocabulary: submarine (known: cat)" in notice("cat in a submarine", words)
    assert {"horse", "galloping"} <= read_vocabulary()


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
