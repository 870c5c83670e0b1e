"""Means over seeds and clips with their uncertainty, differences between two ways, and Holm's correction.

A mean varies with the seed of the training and with the clips that it is measured on. All seeds see the same clips,
so the two parts are independent: the variance over seeds divided by their number, and the variance of the mean over
seeds when the motion keys are drawn anew. The freedom of their sum is Welch's and Satterthwaite's.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference.

    Attributes:
        value: the estimate.
        error: its standard error.
        freedom: degrees of freedom of the error.
    """

    value: float
    error: float
    freedom: float

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval by Student's t."""
        from scipy.stats import t

        reach = float(t.ppf(0.975, self.freedom)) * self.error if self.error else 0.0
        return self.value - reach, self.value + reach

    @property
    def p(self) -> float:
        """The two-sided probability of a value as far from 0 as this if the truth is 0."""
        from scipy.stats import t

        if not self.error:
            return 0.0 if self.value else 1.0
        return float(2 * t.sf(abs(self.value) / self.error, self.freedom))


def estimate(by_seed: Sequence[float], resampled: Tensor, keys: int) -> Estimate:
    """Combine the spread over seeds with that over motion keys.

    Args:
        by_seed: the value of each seed, over all clips; for differences, between two trainings of one seed.
        resampled: the mean over seeds in each resample of the keys, (resamples,).
        keys: number of motion keys.

    Raises:
        ValueError: there is no seed, or there are fewer than two keys or resamples.
    """
    if not by_seed or keys < 2 or len(resampled) < 2:
        raise ValueError(
            f"{len(by_seed)} seeds, {keys} keys and {len(resampled)} resamples have no spread; at least one seed, two "
            "keys and two resamples are needed"
        )
    seeds = statistics.variance(by_seed) / len(by_seed) if len(by_seed) > 1 else 0.0
    clips = float(resampled.double().var())
    total = seeds + clips
    parts = [(seeds, len(by_seed) - 1), (clips, keys - 1)]
    scatter = sum(part**2 / freedom for part, freedom in parts if part)
    return Estimate(statistics.mean(by_seed), total**0.5, total**2 / scatter if scatter else 1.0)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return the probabilities corrected for their number (Holm 1979), in the given order."""
    order = sorted(range(len(probabilities)), key=lambda i: probabilities[i])
    corrected, reached = [0.0] * len(probabilities), 0.0
    for place, i in enumerate(order):
        reached = max(reached, min(1.0, probabilities[i] * (len(probabilities) - place)))
        corrected[i] = reached
    return corrected
