"""Build the archive that users unpack into custom_nodes: `python3 -m devtools.release.archive OUT.zip`.

It contains the files that git tracks, except those that `.comfyignore` matches: the same as `comfy node pack`. The
patterns are git's own, so git evaluates them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from ..run.home import ROOT, Problem

FOLDER = "microcinema"
"""The folder that the archive unpacks to; the pack works under any other name too."""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m devtools.release.archive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT.zip", help="the archive to write")
    parser.add_argument("--check-version", metavar="TAG", help="fail unless TAG is the version of the tree")
    parser.add_argument(
        "--check-publisher",
        action="store_true",
        help="fail unless pyproject.toml has what the registry needs",
    )
    parser.add_argument("--notes", action="store_true", help="print this version's entry of CHANGELOG.md")
    arguments = parser.parse_args()
    try:
        if arguments.check_version:
            check_version(arguments.check_version)
        if arguments.check_publisher:
            check_publisher()
        if arguments.notes:
            print(notes(), end="")
        if arguments.out:
            print(f"{arguments.out}: {len(write(arguments.out))} files, {arguments.out.stat().st_size} bytes")
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def files(root: Path = ROOT) -> list[str]:
    """Return the paths of the archive's files, with forward slashes.

    Raises:
        Problem: `root` is not a git checkout.
    """
    ignored = set(_git(root, "--ignored", "--exclude-from=.comfyignore"))
    return sorted(file for file in _git(root) if file not in ignored and (root / file).is_file())


def write(out: Path, root: Path = ROOT) -> list[str]:
    """Write the archive, all files under `FOLDER`, and return their paths in the checkout."""
    names = files(root)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(root / name, f"{FOLDER}/{name}")
    return names


def version(root: Path = ROOT) -> str:
    """Return the version in pyproject.toml."""
    found = re.search(
        r'^version = "([^"]+)"', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )
    if not found:
        raise Problem("pyproject.toml states no version.")
    return found.group(1)


def check_version(tag: str, root: Path = ROOT) -> None:
    """Check that a tag is "v" and the version, and that CHANGELOG.md begins with that version.

    Raises:
        Problem: they differ.
    """
    stated = version(root)
    logged = re.search(r"^## (\S+)", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    if tag != f"v{stated}" or not logged or logged.group(1) != stated:
        raise Problem(
            f"The tag is {tag}, pyproject.toml says {stated}, and the first entry of CHANGELOG.md is "
            f"{logged.group(1) if logged else 'absent'}; all three must be the same version."
        )


def check_publisher(root: Path = ROOT) -> None:
    """Check that pyproject.toml names the publisher and the repository, which the registry requires.

    Raises:
        Problem: it lacks one of them.
    """
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    lacking = [
        f"[{table}] {key}"
        for table, key in (("tool.comfy", "PublisherId"), ("project.urls", "Repository"))
        if not re.search(rf'^{key} = "[^"]+"', text, re.MULTILINE)
    ]
    if lacking:
        raise Problem(f"Nothing is published to the registry: pyproject.toml lacks {' and '.join(lacking)}.")


def notes(root: Path = ROOT) -> str:
    """Return the entry of CHANGELOG.md for the version in pyproject.toml.

    Raises:
        Problem: there is none, or it is empty.
    """
    stated = version(root)
    log = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(stated)}\n(.*?)(?=^## |\Z)", log, re.MULTILINE | re.DOTALL)
    if not found or not found.group(1).strip():
        raise Problem(f"CHANGELOG.md says nothing of {stated}.")
    return found.group(1).strip() + "\n"


def _git(root: Path, *options: str) -> list[str]:
    command = ["git", "-c", "core.quotePath=off", "ls-files", "--cached", "-z", *options]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Problem(
            "The archive consists of the files that git tracks: this is no git checkout."
        ) from error
    return [name for name in listed.decode("utf-8").split("\0") if name]


if __name__ == "__main__":
    sys.exit(main())
