"""What is best in several things at once."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Numbers of the points that no other one is at least as large as in everything, and larger in something; smallest first."""
    kept = [i for i, point in enumerate(points) if not any(_beats(other, point) for other in points)]
    return sorted(kept, key=lambda i: tuple(points[i]))


def _beats(other: Sequence[float], point: Sequence[float]) -> bool:
    return tuple(other) != tuple(point) and all(a >= b for a, b in zip(other, point, strict=True))
