"""Intervals for rates and means."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def wilson(successes: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a rate.

    Args:
        successes: at most ``n``.
        n: number of trials, or of what trials that depend on each other are worth; without any, the interval is (0, 1).
        z: standard normal quantile; 1.96 for 95 %.

    Returns:
        The lower and the upper end, each in [0, 1].

    Raises:
        ValueError: ``successes`` is not between 0 and ``n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    rate, spread = successes / n, z * z / n
    centre = rate + spread / 2
    half = z * math.sqrt(rate * (1 - rate) / n + spread / (4 * n))
    # the ends at 0 and n are exact; in floating point they would miss by one bit
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / (1 + spread))
    high = 1.0 if successes == n else min(1.0, (centre + half) / (1 + spread))
    return low, high


def mean_interval(values: Sequence[float], z: float = 1.96) -> tuple[float, float, float]:
    """The mean of independent values, and its interval by the normal approximation; for differences, not for rates.

    Args:
        values: at least one; of one alone the interval is all there is.
        z: standard normal quantile; 1.96 for 95 %.
    """
    mean = statistics.fmean(values)
    half = z * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return mean, mean - half, mean + half
