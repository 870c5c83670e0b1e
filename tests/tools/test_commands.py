"""Every command can say what it does."""

from __future__ import annotations

import runpy
import subprocess
import sys

import pytest

from devtools.run.home import ROOT
from microcinema_core.moved import MOVED

COMMANDS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for package in ("microcinema_core", "mini", "devtools", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    and path.stem not in ("launch", "fresh_host")
)
"""Without what other commands start for themselves."""


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


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_command_that_moved_names_its_new_address(old: str, new: str) -> None:
    """Nothing of the old command runs: one line on stderr, exit code 2; the new address is a module."""
    run = subprocess.run([sys.executable, "-m", old, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"python -m {old} has moved: run python -m {new}\n"
    assert new in COMMANDS
