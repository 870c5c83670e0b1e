"""docs/paper.md: every link has a target, and every line anchor is the line of the definition that its text names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from devtools.release import paper_links

TEXT = paper_links.PAGE.read_text(encoding="utf-8")
UPDATE = "run python3 dev.py python -m devtools.release.paper_links"


def test_every_anchor_is_the_line_of_its_definition() -> None:
    links = list(paper_links.LINK.finditer(TEXT))
    assert len(links) > 40
    for link in links:
        lines = (paper_links.PAGE.parent / link["path"]).read_text(encoding="utf-8").splitlines()
        name = re.escape(link["name"].rpartition(".")[2])
        line = lines[int(link["line"]) - 1]
        assert re.match(rf"\s*(class|def) {name}\b|{name}\b.*=", line), f"{link[0]}: {line!r}; {UPDATE}"
    assert paper_links.with_line_numbers(TEXT, paper_links.PAGE.parent) == (TEXT, []), UPDATE


def test_every_linked_file_exists() -> None:
    targets = re.findall(r"\]\(([^)#]+)", TEXT)
    assert not [target for target in targets if not (paper_links.PAGE.parent / target).is_file()]
    assert not re.findall(r"\.py\)", TEXT), "a link to Python code names a definition"


def test_lines_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "X: int = 1\n\n\nclass B:\n    @property\n    def c(self):\n        d = 2\n"
    )
    page, missing = paper_links.with_line_numbers("[`X`](a.py#L7) [`B`](a.py#L0) [`B.c`](a.py#L1)", tmp_path)
    assert page == "[`X`](a.py#L1) [`B`](a.py#L4) [`B.c`](a.py#L6)" and not missing


@pytest.mark.parametrize("link", ["[`d`](a.py#L1)", "[`B`](b.py#L1)"])
def test_a_missing_definition_is_reported(tmp_path: Path, link: str) -> None:
    (tmp_path / "a.py").write_text("class B:\n    d = 2\n")
    page, (reported,) = paper_links.with_line_numbers(f"{link} [`B.d`](a.py#L9)", tmp_path)
    assert page == f"{link} [`B.d`](a.py#L2)"
    assert re.fullmatch(r"[ab]\.py has no [dB]", reported)
