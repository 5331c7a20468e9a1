"""Is one policy better than another on the same tasks? Differences task by task, so that hard tasks do not hide them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lit_agents.evaluation.stats.intervals import mean_interval
from lit_agents.evaluation.stats.pass_at_k import Tally

DRAWS = 100_000
EXACT = 16
"""Up to so many tasks with a difference, all sign patterns are counted."""


@dataclass(frozen=True)
class Comparison:
    """The first policy minus the second."""

    difference: float
    """Of the success rates, mean over the tasks both played."""
    low: float
    high: float
    """95 %, normal approximation over tasks, within -1 to 1."""
    p: float
    """Two-sided, of the sign-flip test."""
    tasks: int
    better: int
    """Tasks on which the first did better."""
    worse: int

    @property
    def sentence(self) -> str:
        """For a person."""
        counts = f"better on {self.better}, worse on {self.worse} of {self.tasks} tasks"
        return f"{self.difference:+.3f} (95 % {self.low:+.3f} to {self.high:+.3f}; sign-flip test p = {self.p:.3g}; {counts})"


def compare(first: Tally, second: Tally) -> Comparison:
    """A paired comparison.

    Raises:
        ValueError: no task was played by both.
    """
    shared = [task for task in first if task in second]
    if not shared:
        raise ValueError("the two have no task in common")
    gains = [first[t][0] / first[t][1] - second[t][0] / second[t][1] for t in shared]
    mean, low, high = mean_interval(gains)
    better, worse = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    low, high = max(low, -1.0), min(high, 1.0)  # one task alone has an interval without ends
    return Comparison(mean, low, high, sign_flip(gains), len(shared), better, worse)


def holm(ps: list[float]) -> list[float]:
    """p-values corrected for how many there are, in their order (Holm 1979)."""
    corrected, floor = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        floor = max(floor, min(1.0, (len(ps) - rank) * ps[i]))
        corrected[i] = floor
    return corrected


def sign_flip(gains: list[float]) -> float:
    """Two-sided p-value of differences whose signs could as well be the other ones if neither were better.

    With one episode per task this is McNemar's exact test. All patterns of signs are counted where they are few or where all
    differences have one size, else 100,000 random ones (always the same).
    """
    sizes = np.abs(np.array([g for g in gains if g != 0]))
    if len(sizes) == 0:
        return 1.0
    observed = abs(math.fsum(gains))
    if np.allclose(sizes, sizes[0]):
        n, ones = len(sizes), round((len(sizes) - observed / sizes[0]) / 2)
        tail = sum(math.comb(n, i) for i in range(ones + 1)) / 2.0**n
        return min(1.0, 2 * tail)
    if len(sizes) <= EXACT:
        patterns = (np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes))) & 1
        sums = np.abs((2 * patterns - 1) @ sizes)
        return float(np.mean(sums >= observed - 1e-9))
    stream, as_large = np.random.Generator(np.random.Philox(0)), 0
    for _ in range(DRAWS // 1000):
        sums = np.abs((2 * stream.integers(0, 2, (1000, len(sizes))) - 1) @ sizes)
        as_large += int(np.sum(sums >= observed - 1e-9))
    return (1 + as_large) / (1 + DRAWS)
