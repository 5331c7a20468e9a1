"""Episodes written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lit_agents.types import Episode, Signal, StopReason, Task, Turn


def turn(signals: Mapping[str, Signal], tokens: int = 2) -> Turn:
    return Turn("o", (1,), "a", tuple(range(tokens)), (-0.5,) * tokens, 0, signals)


def episode(
    scores: Sequence[float | None],
    stop: StopReason,
    max_score: float = 1.0,
    valid: Sequence[bool] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Episode:
    """One turn per score; None stands for an action that was not played."""
    turns, before = [], 0.0
    for k, score in enumerate(scores):
        if score is None:
            turns.append(turn({}))
            continue
        turns.append(turn({"score": score, "gain": score - before, "valid": valid is None or valid[k]}))
        before = score
    return Episode(Task("f", "1", "train", labels=labels or {}), 0, tuple(turns), stop, max_score)
