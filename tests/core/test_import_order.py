"""Imports of the core run one way: no module imports itself through others, and nothing outside the core."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = "microcinema_core"
OUTSIDE = ("benchmarks", "devtools", "mini", "nodes", "tests")


def module_name(path: Path) -> str:
    """Return a file's dotted name; that of a package for its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / CORE).rglob("*.py"))}


def imported_names(module: str) -> Iterator[str]:
    """Yield the absolute names that a module imports, inside functions too."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            yield from names & set(MODULES)
            if not names <= set(MODULES):
                yield base


IMPORTS = {module: set(imported_names(module)) for module in MODULES}


def test_no_module_imports_itself_through_others() -> None:
    assert f"{CORE}.data.videos.sources" in IMPORTS[f"{CORE}.data.prepare"], "relative imports are resolved"
    graph = {module: names & set(MODULES) for module, names in IMPORTS.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_core_imports_nothing_outside_itself() -> None:
    outside = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        for name in sorted(names)
        if name.split(".")[0] in OUTSIDE
    ]
    assert not outside
