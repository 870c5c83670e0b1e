"""Every command has a --help, and every command that moved names its new address."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from devtools import MOVED as MOVED_TOOLS
from devtools.run.home import ROOT, dev_command
from microcinema_core.moved import MOVED

README = ROOT / "README.md"
COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for package in ("microcinema_core", "mini", "devtools", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8") and path.stem != "fresh_host"
)
"""Except one that another command starts."""


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_told(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(command, run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith(f"usage: python -m {command} ")


@pytest.mark.parametrize(("old", "new"), [*MOVED.items(), *MOVED_TOOLS.items()])
def test_a_command_that_moved_names_its_new_address(old: str, new: str) -> None:
    """It prints one line on stderr and exits with code 2; the new address is a command."""
    run = subprocess.run([sys.executable, "-m", old, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    where = "" if new.startswith("microcinema_core") else " in a clone of the repository"
    assert run.stderr == f"python -m {old} has moved: run python -m {new}{where}\n"
    assert new in COMMANDS


def test_dev_py_needs_the_standard_library_only() -> None:
    """It runs before there is an environment: `-S` hides all installed packages."""
    code = "import dev, sys; sys.exit(', '.join({'torch', 'numpy', 'einops'} & set(sys.modules)) or 0)"
    run = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    run = subprocess.run([sys.executable, "-S", "dev.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("usage: dev.py ")


@pytest.mark.parametrize("folder", ["clone", "elsewhere"])
def test_a_command_that_a_message_names_works_where_it_is_read(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT if folder == "clone" else tmp_path)
    interpreter, *words = shlex.split(dev_command("stop"))
    assert interpreter in ("python", "python3") and (words[0] == "dev.py") == (folder == "clone")
    run = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith("\nNo ComfyUI of dev.py runs in")


@pytest.mark.parametrize(
    "line", re.findall(r"^python3 (dev\.py python .*--dry-run)", README.read_text(encoding="utf-8"), re.M)
)
def test_what_the_readme_shows_works_in_a_fresh_home(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ComfyUI" / "comfy").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "main.py").write_text("")
    monkeypatch.setenv("MICROCINEMA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MICROCINEMA_VENV", sys.prefix)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    run = subprocess.run([sys.executable, *line.split()], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("options", [["-m"], ["-X", "utf8", "-m"]])
def test_an_argument_that_reads_like_a_moved_command_is_an_argument(options: list[str]) -> None:
    """Only the module that Python is asked to run counts."""
    asked = ["microcinema_core.train", "microcinema_core.train.show", "--dry-run"]
    run = subprocess.run([sys.executable, *options, *asked], cwd=ROOT, capture_output=True, text=True)
    assert "has moved" not in run.stderr and run.returncode == 1
