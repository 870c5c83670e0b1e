"""The core stands alone: every module but the host's adapter imports where there is no ComfyUI, and at little cost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
