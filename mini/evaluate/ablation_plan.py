"""Which models the paper's ablations need at the mini scale, and how each is sampled: Tables 2 to 4, Fig. 6 and 7.

A variant is a training; a cell is a way to sample it. Several cells share a training, such as the gammas of Fig. 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from microcinema_core.diffusion.noise import GAMMA

SHIPPED = "shipped"
GROUPS = {"temporal": 1.0, "injection": 1.0, "spatial": 1.0}
FROZEN_AT_ZERO: dict[str, Any] = {
    "model": {"injection": "concat"},
    "optim": {"groups": {**GROUPS, "injection": 0.0}},
}
"""No injection: AppearNet is one convolution that starts at zero and is not trained, so it adds nothing, and the prior
stays. A tenth of the clips are trained without the prior, too, as in every variant."""
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    SHIPPED: {},
    "no prior": {"model": {"lambda": 0.0}},
    "lambda 0.1": {"model": {"lambda": 0.1}},
    "concat": {"model": {"injection": "concat"}},
    "add_dec": {"model": {"injection": "add_dec"}},
    "add_encdec": {"model": {"injection": "add_encdec"}},
    "prior alone": FROZEN_AT_ZERO,
    "neither": {**FROZEN_AT_ZERO, "model": {"injection": "concat", "lambda": 0.0}},
    "SPADE in out_layers alone": {"model": {"spade_norms": "out"}},
    "AppearNet sees time and text": {"model": {"time_conditioned": True, "text_conditioned": True}},
    "norm over the clip": {"model": {"injected_norm": "clip"}},
    "spatial layers ten times slower": {"optim": {"groups": {**GROUPS, "spatial": 0.1}}},
    "appearance attention": {
        "model": {"appearance_attention": True},
        "optim": {"groups": {**GROUPS, "appearance_attention": 8.0}},
    },
}
"""Changes to the tables of mini/configs/mini_base_start.toml, without what is not of the paper."""


@dataclass(frozen=True)
class Cell:
    """A trained variant, and how it is sampled.

    Attributes:
        variant: a key of `VARIANTS`.
        gamma: share of the centre frame in the starting noise.
        captions: the clips' own captions, or the subject's name alone.
        centres: the true centre frames, or those that the family's image model draws from the captions.
    """

    variant: str = SHIPPED
    gamma: float = GAMMA
    captions: Literal["full", "short"] = "full"
    centres: Literal["true", "drawn"] = "true"

    @property
    def key(self) -> str:
        """Name of its stored values, apart from the variant and the seed."""
        return f"gamma{self.gamma:g}-{self.captions}-{self.centres}"


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper.

    Attributes:
        title: what it compares.
        rows: the cells by the name of their row.
        baseline: the row that the others are compared with.
        claims: pairs of rows of which the paper reports the first as better (by FVD; Fig. 7: by eye).
    """

    title: str
    rows: dict[str, Cell]
    baseline: str
    claims: tuple[tuple[str, str], ...] = ()


LAMBDAS = {0.0: "no prior", 0.03: SHIPPED, 0.1: "lambda 0.1"}
GAMMAS = (0.0, 0.02, 0.065)


def grid_row(lambda_: float, gamma: float) -> str:
    """Return the name of a row of Fig. 6."""
    return f"lambda {lambda_:g}, gamma {gamma:g}"


TABLES: dict[str, Table] = {
    "table2": Table(
        "Table 2: how appearance is injected",
        {
            "Concat": Cell("concat"),
            "Add-to-Dec": Cell("add_dec"),
            "Add-to-EncDec": Cell("add_encdec"),
            "Add-to-EncDec-SPADE": Cell(),
        },
        "Add-to-EncDec-SPADE",
        (
            ("Add-to-EncDec-SPADE", "Add-to-EncDec"),
            ("Add-to-EncDec", "Add-to-Dec"),
            ("Add-to-Dec", "Concat"),
        ),
    ),
    "fig6": Table(
        "Fig. 6: lambda in training, gamma in sampling",
        {
            grid_row(lambda_, gamma): Cell(variant, gamma)
            for lambda_, variant in LAMBDAS.items()
            for gamma in GAMMAS
        },
        grid_row(0, 0),
        tuple(
            (grid_row(0.03, 0.02), grid_row(lambda_, gamma))
            for lambda_ in LAMBDAS
            for gamma in GAMMAS
            if (lambda_, gamma) != (0.03, 0.02)
        ),
    ),
    "fig7": Table(
        "Fig. 7: injection (AIN) and noise prior (ANP)",
        {
            "neither": Cell("neither", 0.0),
            "AIN alone": Cell("no prior", 0.0),
            "ANP alone": Cell("prior alone"),
            "both": Cell(),
        },
        "both",
        (("both", "AIN alone"), ("both", "ANP alone"), ("both", "neither")),
    ),
    "rates": Table(
        "Section 4.1: learning rate of the spatial layers",
        {"ten times lower": Cell("spatial layers ten times slower"), "the same": Cell()},
        "the same",
    ),
    "norms": Table(
        "Section 3.2: statistics of the norms that SPADE modulates",
        {"over the clip": Cell("norm over the clip"), "over each frame": Cell()},
        "over each frame",
    ),
    "table3": Table(
        "Table 3: captions",
        {"short": Cell(captions="short"), "full": Cell()},
        "short",
        (("full", "short"),),
    ),
    "table4": Table(
        "Table 4: first stage",
        {"drawn by the image model": Cell(centres="drawn"), "true centre frame": Cell()},
        "true centre frame",
    ),
}


def cells_of(names: Iterable[str]) -> list[Cell]:
    """Return the cells of these tables, each once."""
    return list(dict.fromkeys(cell for name in names for cell in TABLES[name].rows.values()))


def variants_of(names: Iterable[str]) -> list[str]:
    """Return the variants that these tables need, each once."""
    return list(dict.fromkeys(cell.variant for cell in cells_of(names)))
