"""Counts of saved answers, as in Figures 5 and 8: which of the two sets people prefer, with intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import json_text
from ...messages import one_line
from ..bootstrap import interval, key_weights, weighted_mean
from .study import QUESTIONS, SIDES, Study, read_study

SAME = "same"
RESAMPLES = 1000


def tally(out: Path, paths: Sequence[Path]) -> str:
    """Return the table of a study's answers.

    The intervals (95%, bootstrap) draw pairs and people anew, since both are samples.

    Args:
        out: folder of the study.
        paths: files that people saved, one a person.

    Raises:
        ValueError: a file is no answer of this study, is incomplete, or is there twice.
    """
    study = read_study(out)
    files = [_read(path, study) for path in paths]
    if len({json.dumps(file, sort_keys=True) for file in files}) < len(files):
        raise ValueError("two of these files hold the same name and answers; give each person's file once")
    saved = [file["answers"] for file in files]
    pairs = len(study.pairs)
    resamples = _weights(pairs, len(saved))
    lines = [
        f"A is {study.first}, B is {study.second}: {pairs} pairs, {len(saved)} people.",
        "",
        "| question | A | same | B | A, with half of the ties [95%] |",
        "|---|---|---|---|---|",
    ]
    for key in study.questions:
        scores = torch.tensor(
            [
                _score(one[key], pair.first)
                for answers in saved
                for one, pair in zip(answers, study.pairs, strict=True)
            ]
        )
        shares = " | ".join(f"{float((scores == value).float().mean()):.0%}" for value in (1.0, 0.5, 0.0))
        low, high = interval(partial(weighted_mean, scores), resamples)
        lines.append(f"| {QUESTIONS[key]} | {shares} | {float(scores.mean()):.2f} [{low:.2f}, {high:.2f}] |")
    return "\n".join(lines)


def _weights(pairs: int, people: int) -> Tensor:
    """Draw pairs and people, both with replacement: multiplicities (resamples, people * pairs)."""
    of_pairs = key_weights([str(i) for i in range(pairs)], RESAMPLES, seed=0)
    of_people = key_weights([str(i) for i in range(people)], RESAMPLES, seed=1)
    return (of_people[:, :, None] * of_pairs[:, None]).flatten(1)


def _score(answer: str, first: str) -> float:
    """Return 1 for the first folder's video, 0 for the second's, 0.5 for neither."""
    return 0.5 if answer == SAME else float(answer == first)


def _read(path: Path, study: Study) -> dict[str, Any]:
    """Return what a person saved: `answers` has one entry for each pair."""
    try:
        saved = json_text.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{one_line(path)} cannot be read as saved answers") from error
    if not isinstance(saved, dict) or saved.get("study") != study.id:
        raise ValueError(f"{one_line(path)} holds no answers of this study")
    answers = saved.get("answers")
    if (
        not isinstance(answers, list)
        or len(answers) != len(study.pairs)
        or not all(_is_complete(answer, study) for answer in answers)
    ):
        raise ValueError(
            f"{one_line(path)} does not answer every question of all {len(study.pairs)} pairs with one of "
            f"{', '.join((*SIDES, SAME))}"
        )
    return saved


def _is_complete(answer: Any, study: Study) -> bool:
    return isinstance(answer, dict) and all(answer.get(key) in (*SIDES, SAME) for key in study.questions)
