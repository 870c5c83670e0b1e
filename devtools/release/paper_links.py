"""Update the line numbers in docs/paper.md: `python3 dev.py python -m devtools.release.paper_links`.

A link there names a definition: [`UNet3D.forward`](../microcinema_core/networks/unet.py#L1). Its anchor is the line of
that `class`, `def` or assignment.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ..run.home import ROOT

PAGE = ROOT / "docs" / "paper.md"
LINK = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<path>[^()#\s]+\.py)#L(?P<line>\d+)\)")


def main() -> int:
    """Run the command line; exit code 1 if a link names a definition that does not exist."""
    argparse.ArgumentParser(
        prog="python -m devtools.release.paper_links",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    text, missing = with_line_numbers(PAGE.read_text(encoding="utf-8"), PAGE.parent)
    PAGE.write_text(text, encoding="utf-8", newline="\n")
    for link in missing:
        print(f"{PAGE.name}: {link}; write its new file and name into the link", file=sys.stderr)
    return 1 if missing else 0


def with_line_numbers(text: str, folder: Path) -> tuple[str, list[str]]:
    """Set the anchor of each link in a page to the line of the definition that the link names.

    Args:
        text: the page.
        folder: folder that the page's links are relative to.

    Returns:
        The page, and a phrase for each link whose file or definition does not exist; such links stay as they are.
    """
    missing: list[str] = []

    def updated(link: re.Match[str]) -> str:
        line = line_of(folder / link["path"], link["name"])
        if line is None:
            missing.append(f"{link['path']} has no {link['name']}")
        return f"[`{link['name']}`]({link['path']}#L{line or link['line']})"

    return LINK.sub(updated, text), missing


def line_of(file: Path, name: str) -> int | None:
    """Return the line of a definition by its qualified name, `UNet3D.forward`; None if there is none."""
    if not file.is_file():
        return None
    return dict(_definitions(ast.parse(file.read_text(encoding="utf-8")).body, "")).get(name)


def _definitions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, int]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node.lineno
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{prefix}{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from ((prefix + target.id, node.lineno) for target in targets if isinstance(target, ast.Name))


if __name__ == "__main__":
    sys.exit(main())
