"""The archive contains everything that users of the nodes need, and nothing else."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from devtools.release import archive
from devtools.run.home import ROOT, Problem

FOLDERS = {
    "configs",
    "docs",
    "locales",
    "microcinema_core",
    "nodes",
    "subgraphs",
    "weights",
    "web",
    "workflows",
}
FILES = {
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "THIRD_PARTY.md",
    "__init__.py",
    "pyproject.toml",
    "requirements.txt",
}
LEFT_OUT = {"benchmarks", "dev", "devtools", "mini", "tests"}
"""Modules of the repository that are not in the archive."""
RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)),
}

in_git = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(),
    reason="the archive is made from a git checkout",
)


@in_git
def test_it_holds_what_the_nodes_need_and_nothing_else() -> None:
    names = [PurePosixPath(name) for name in archive.files()]
    assert {name.parts[0] for name in names if len(name.parts) > 1} == FOLDERS
    assert {name.name for name in names if len(name.parts) == 1} == FILES
    kinds = {name.suffix for name in names}
    assert kinds <= {
        ".py",
        ".js",
        ".json",
        ".html",
        ".jpg",
        ".md",
        ".toml",
        ".txt",
        ".safetensors",
        ".png",
        ".webp",
        "",
    }
    for folder in ("nodes", "microcinema_core"):
        there = {file.relative_to(ROOT).as_posix() for file in (ROOT / folder).rglob("*.py")}
        tracked = set(
            subprocess.run(
                ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True
            ).stdout.split()
        )
        assert there & tracked <= {name.as_posix() for name in names}


@in_git
def test_no_module_of_it_imports_what_is_left_out() -> None:
    for name in archive.files():
        if name.endswith(".py"):
            assert not imported((ROOT / name).read_text(encoding="utf-8")) & LEFT_OUT, name


def imported(source: str) -> set[str]:
    """Return the top-level names of all modules that a source file imports, except relative imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    "line",
    [
        "import devtools",
        "import os, devtools.run.home as home",
        "def f():\n    from devtools import home",
        "import benchmarks",
        "from benchmarks.memory import peak",
        "from tests import quick",
        "import dev",
    ],
)
def test_an_import_of_what_is_left_out_is_seen(line: str) -> None:
    assert imported(line) & LEFT_OUT
    assert not imported("from .devtools import x\nimport os\nfrom . import tests") & LEFT_OUT


@in_git
def test_links_lead_to_what_is_there() -> None:
    """No page of the archive links to a picture or a file that is not in it."""
    names = {PurePosixPath(name) for name in archive.files()}
    there = names | {parent for name in names for parent in name.parents}
    for page in (name for name in names if name.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8")):
            if "://" not in target:
                resolved = (ROOT / page.parent / target).resolve().relative_to(ROOT.resolve()).as_posix()
                assert PurePosixPath(resolved) in there, (page, target)


@in_git
def test_it_unpacks_under_one_folder(tmp_path: Path) -> None:
    written = archive.write(tmp_path / "pack.zip")
    with zipfile.ZipFile(tmp_path / "pack.zip") as file:
        assert sorted(file.namelist()) == sorted(f"{archive.FOLDER}/{name}" for name in written)
        assert file.testzip() is None


@in_git
def test_every_path_is_one_that_windows_takes() -> None:
    names = archive.files()
    assert len({name.lower() for name in names}) == len(names), "two names differ in case alone"
    for name in names:
        path = PureWindowsPath(name)
        assert not path.drive and not path.root and path.as_posix() == name
        assert not re.search(r'[<>:"|?*\\\x00-\x1f]', name), name
        for part in path.parts:
            assert not part.endswith((" ", ".")) and part.split(".")[0].lower() not in RESERVED, name
        assert (
            len(
                str(
                    PureWindowsPath(r"C:\ComfyUI_windows_portable\ComfyUI\custom_nodes", archive.FOLDER, path)
                )
            )
            < 200
        )


@in_git
def test_text_that_the_host_reads_in_the_systems_own_encoding_is_ascii() -> None:
    """The host opens subgraphs without an encoding, which is not UTF-8 on Windows."""
    subgraphs = [name for name in archive.files() if name.startswith("subgraphs/")]
    assert subgraphs
    assert all((ROOT / name).read_bytes().isascii() for name in subgraphs)


def test_a_version_is_one_everywhere(tmp_path: Path) -> None:
    archive.check_version(f"v{archive.version()}")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.0.9\n")
    with pytest.raises(Problem, match=r"the first entry of CHANGELOG.md is 0\.0\.9"):
        archive.check_version(f"v{archive.version()}", tmp_path)
    with pytest.raises(Problem, match="The tag is v9"):
        archive.check_version("v9.9.9")


def test_notes_are_of_one_version(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    version = archive.version()
    older = "## 0.0.9\n\nOld.\n"
    (tmp_path / "CHANGELOG.md").write_text(
        f"# Changelog\n\nOf all.\n\n## {version}\n\nThe new.\n\n- b\n\n{older}"
    )
    assert archive.notes(tmp_path) == "The new.\n\n- b\n"
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version}\n\nThe only.\n")
    assert archive.notes(tmp_path) == "The only.\n"
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{older}")
    with pytest.raises(Problem, match="says nothing of"):
        archive.notes(tmp_path)


@pytest.mark.parametrize(
    ("stated", "lacking"),
    [
        ('PublisherId = ""', r"\[tool.comfy\] PublisherId and \[project.urls\] Repository"),
        ('PublisherId = "someone"', r"lacks \[project.urls\] Repository"),
        ('Repository = "https://example.org/x"\nPublisherId = ""', r"lacks \[tool.comfy\] PublisherId"),
        ('Repository = "https://example.org/x"\nPublisherId = "someone"', None),
    ],
)
def test_nothing_is_published_by_nobody(tmp_path: Path, stated: str, lacking: str | None) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[project]\n{stated}\n")
    if lacking is None:
        archive.check_publisher(tmp_path)
    else:
        with pytest.raises(Problem, match=lacking):
            archive.check_publisher(tmp_path)


def test_without_git_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no git checkout"):
        archive.files(tmp_path)


def test_requirements_are_the_projects_own() -> None:
    """A manager installs requirements.txt; torch comes with the host and is listed in pyproject.toml only."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    stated = re.search(r"^dependencies = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert stated
    ours = {line for line in re.findall(r'"([^"]+)"', stated.group(1)) if not line.startswith("torch")}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == ours
