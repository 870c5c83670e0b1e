"""What may be imported: the core without ComfyUI and without the mini world, metrics without training."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "microcinema_core"
SCRIPT = """
import importlib, sys

class NoHost:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("comfy", "comfy_api", "folder_paths", "nodes", "latent_preview"):
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, NoHost())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
NOT_INSTALLED = ("mini", "devtools", "tests", "benchmarks")
"""Packages that the archive for users does not contain."""


def imports_of(file: Path) -> Iterator[str]:
    """Yield the absolute names of everything that a file imports, at any level of indentation."""
    package = file.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield from (".".join([*base, node.module or "", alias.name]) for alias in node.names)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("microcinema_core", NOT_INSTALLED),
        ("nodes", NOT_INSTALLED),
        ("microcinema_core/metrics", ("microcinema_core.train",)),
    ],
)
def test_imports_run_one_way(folder: str, forbidden: tuple[str, ...]) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imports_of(file)
        if any(f"{name}.".startswith(f"{package}.") for package in forbidden)
    ]
    assert not wrong


def test_the_core_imports_without_a_host() -> None:
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in sorted(CORE.rglob("*.py"))
        if "adapter" not in file.parts and file.name != "__main__.py"
    ]
    assert len(modules) > 20
    run = subprocess.run([sys.executable, "-c", SCRIPT, *modules], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_the_packs_root_file_imports_nothing_until_it_is_asked() -> None:
    script = "import sys; sys.path.insert(0, '.'); before = set(sys.modules); import __init__; " + (
        "heavy = {'torch', 'kornia', 'microcinema_core'} & (set(sys.modules) - before); sys.exit(', '.join(heavy) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
