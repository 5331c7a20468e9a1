"""Episodes whose tokens are written by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lit_agents.types import Episode, StopReason, Task, Turn

TASK = Task("f", "1", "train")


def episode(
    turns: Sequence[tuple[Sequence[int], Sequence[int]]],
    stop: StopReason = StopReason.LOST,
    task: Task = TASK,
    member: int = 0,
    logprob: float = -0.5,
    version: int = 0,
) -> Episode:
    """One turn per pair of observation tokens and action tokens."""
    made = [
        Turn("o", tuple(seen), "a", tuple(said), (logprob,) * len(said), version, {"score": 0.0})
        for seen, said in turns
    ]
    return Episode(task, member, tuple(made), stop, 1.0)


def forest(seed: int, episodes: int, vocabulary: int = 3, turns: int = 3, task: Task = TASK) -> list[Episode]:
    """Random episodes of few different tokens and two first observations, so that many begin alike."""
    rng = random.Random(seed)

    def some(least: int, most: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(rng.randint(least, most))]

    firsts = [some(2, 5), some(2, 5)]
    made = []
    for member in range(episodes):
        pairs = [(rng.choice(firsts), some(1, 3))]
        pairs += [(some(1, 2), some(1, 3)) for _ in range(rng.randrange(turns))]
        made.append(episode(pairs, task=task, member=member))
    return made
