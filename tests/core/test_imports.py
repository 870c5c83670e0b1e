"""Imports: one way through the core's layers, without cycles, and without ComfyUI or the repository's tools."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = "microcinema_core"
NOT_INSTALLED = ("benchmarks", "devtools", "mini", "tests")
"""Packages that the archive for users does not contain."""
OUTSIDE = (*NOT_INSTALLED, "nodes")
"""Packages of the repository beside the core."""
LAYERS = (
    ("moved", "optional_deps", "messages", "json_text"),
    ("values", "guarded"),
    ("config", CORE),
    ("model_spec",),
    ("networks",),
    ("diffusion",),
    ("files",),
    ("frames",),
    ("data",),
    ("metrics",),
    ("train", "adapter"),
    ("nodes",),
)
"""Layers from bottom to top. A part imports only parts of lower layers; CORE is the package's own `__init__.py`."""
RANKS = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
SCRIPT = """
import importlib, sys

class NoHost:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("comfy", "comfy_api", "folder_paths", "nodes", "latent_preview"):
            raise ImportError(f"{name} is not available here")

sys.meta_path.insert(0, NoHost())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def module_name(path: Path) -> str:
    """Return a file's dotted name; that of a package for its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for top in (CORE, "nodes") for path in sorted((ROOT / top).rglob("*.py"))}


def imported_names(module: str) -> Iterator[str]:
    """Yield the absolute names that a module imports, inside functions too."""
    path = MODULES[module]
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def module_of(name: str) -> str | None:
    """Return the module of MODULES that an imported name is, or is defined in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def part_of(module: str) -> str:
    """Return the part of LAYERS that a module belongs to: a folder or file of the core, or `nodes`."""
    top, *rest = module.split(".")
    return rest[0] if top == CORE and rest else top


NAMES = {module: set(imported_names(module)) for module in MODULES}
GRAPH = {module: {found for name in names if (found := module_of(name))} for module, names in NAMES.items()}


def forbidden_imports(package: str, forbidden: tuple[str, ...]) -> list[str]:
    """Return the imports of a package's modules from forbidden packages, as text."""
    modules = [module for module in MODULES if f"{module}.".startswith(f"{package}.")]
    assert modules
    return [
        f"{module} imports {name}"
        for module in modules
        for name in sorted(NAMES[module])
        if any(f"{name}.".startswith(f"{other}.") for other in forbidden)
    ]


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("microcinema_core", NOT_INSTALLED),
        ("nodes", NOT_INSTALLED),
        ("microcinema_core/metrics", ("microcinema_core.train",)),
    ],
)
def test_imports_run_one_way(folder: str, forbidden: tuple[str, ...]) -> None:
    assert not forbidden_imports(folder.replace("/", "."), forbidden)


def test_the_core_imports_nothing_outside_itself() -> None:
    assert not forbidden_imports(CORE, OUTSIDE)


def test_no_module_imports_itself_through_others() -> None:
    assert f"{CORE}.data.videos.sources" in GRAPH[f"{CORE}.data.prepare"], "relative imports are resolved"
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_each_part_imports_only_lower_layers() -> None:
    assert {part_of(module) for module in MODULES} == set(RANKS), "every part has a layer"
    assert f"{CORE}.adapter" in set().union(
        *(GRAPH[module] for module in MODULES if part_of(module) == "nodes")
    )
    wrong = [
        f"{module} imports {name}"
        for module, names in GRAPH.items()
        for name in sorted(names)
        if part_of(module) != part_of(name) and RANKS[part_of(module)] <= RANKS[part_of(name)]
    ]
    assert not wrong


def test_the_core_imports_without_a_host() -> None:
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in sorted((ROOT / CORE).rglob("*.py"))
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
