"""The paper's own figures (Tables 1 to 4, Fig. 6), to print beside one's own."""

from __future__ import annotations

from collections.abc import Sequence

from ..figures import Figure

TABLE_1: dict[str, dict[str, float]] = {
    "ucf101": {"FVD": 342.86, "IS": 37.46},
    "msrvtt": {"FVD": 377.40, "CLIPSIM": 0.2967},
}
"""MicroCinema's rows: 10,000 samples of UCF-101, 2,990 of MSR-VTT."""


def beside_the_paper(benchmark: str, figures: Sequence[Figure]) -> str:
    """Return a Markdown table of the paper's figures and these."""
    mine = {figure.name: figure for figure in figures}
    lines = ["| zero-shot | paper | yours |", "|---|---|---|"]
    for name, value in TABLE_1[benchmark].items():
        found = mine.get(name)
        shown = (
            f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}], {found.made} samples" if found else ""
        )
        lines.append(f"| {name} | {value:g} | {shown} |")
    return "\n".join(lines)
