"""The paper's own figures (Tables 1 to 4, Fig. 6), to print beside one's own or an empty column."""

from __future__ import annotations

from collections.abc import Sequence

from ..figures import Figure, with_interval

TABLE_1 = {
    "ucf101": {"FVD": "342.86", "IS": "37.46"},
    "msrvtt": {"FVD": "377.40", "CLIPSIM": "0.2967"},
}
"""MicroCinema's rows, in the paper's digits: 10,000 samples of UCF-101, 2,990 of MSR-VTT."""
DIGITS = {"FVD": 2, "IS": 2, "CLIPSIM": 4}
"""Decimals of the paper's figures."""
OTHERS = (
    ("2", "concatenation", "688.92", "15.83"),
    ("2", "addition to the decoder", "589.59", "27.90"),
    ("2", "addition to encoder and decoder", "525.02", "27.25"),
    ("2", "the same with SPADE", "508.56", "29.63"),
    ("Fig. 6", "lambda 0, gamma 0", "692", "18.5"),
    ("Fig. 6", "lambda 0.03, gamma 0.02, the best", "508", "29.6"),
    ("3", "SDXL, simple prompts", "374.05", "29.79"),
    ("3, 4", "SDXL, captions of LLaVA-1.5", "336.40", "32.07"),
    ("4", "SD 2.1, captions of LLaVA-1.5", "412.53", "31.25"),
)
"""Table or figure, setting, FVD and IS, of UCF-101: Table 2 and Fig. 6 of 2,000 samples, Tables 3 and 4 of 10,000 with
17 frames. Fig. 6 is a plot: section 4.2.2 names two of its nine points."""


def beside_the_paper(benchmark: str, figures: Sequence[Figure]) -> str:
    """Return Table 1's figures and these as a Markdown table; for UCF-101, the other tables beside an empty column."""
    mine = {figure.name: _as_printed(figure) for figure in figures if figure.name in DIGITS}
    lines = ["| zero-shot | paper | yours |", "|---|---|---|"]
    lines += [f"| {name} | {value} | {mine.get(name, '')} |" for name, value in TABLE_1[benchmark].items()]
    if benchmark == "ucf101":
        lines += ["", "| table | setting | FVD / IS | yours |", "|---|---|---|---|"]
        lines += [f"| {table} | {setting} | {fvd} / {score} | |" for table, setting, fvd, score in OTHERS]
    return "\n".join(lines)


def _as_printed(figure: Figure) -> str:
    shown = with_interval(figure, lambda value: f"{value:.{DIGITS[figure.name]}f}")
    return f"{shown}, {figure.made} samples"
