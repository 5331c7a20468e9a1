"""Columns of numbers that are often the same one many times over, written short and exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

RunLengths = list[tuple[float, int]]
"""A number and how often it comes, one after the other."""


def run_lengths(values: Iterable[float]) -> RunLengths:
    """Numbers as float32, each with the fewest digits that give the same float32 back."""
    column = np.fromiter(values, dtype=np.float32)
    return [(float(str(value)), sum(1 for _ in same)) for value, same in groupby(column)]


def spelled_out(runs: Sequence[tuple[float, int]]) -> list[float]:
    """The inverse."""
    return [float(np.float32(value)) for value, count in runs for _ in range(count)]
