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
    window: Sequence[int] = (),
) -> Episode:
    """One turn per pair of observation tokens and action tokens; where the window of each starts, if it slides."""
    made = [
        Turn("o", tuple(seen), "a", tuple(said), (logprob,) * len(said), version, {"score": 0.0}, window_start=start)
        for (seen, said), start in zip(turns, window or [1] * len(turns), strict=True)
    ]
    return Episode(task, member, tuple(made), stop, 1.0)


def forest(
    seed: int, episodes: int, vocabulary: int = 3, turns: int = 3, task: Task = TASK, windows: bool = False
) -> list[Episode]:
    """Random episodes of few different tokens and two first observations, so that many begin alike.

    Args:
        windows: old turns drop out of sight at random.
    """
    rng = random.Random(seed)

    def some(least: int, most: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(rng.randint(least, most))]

    firsts = [some(2, 5), some(2, 5)]
    made = []
    for member in range(episodes):
        pairs = [(rng.choice(firsts), some(1, 3))]
        pairs += [(some(1, 2), some(1, 3)) for _ in range(rng.randrange(turns))]
        window = [1]
        for k in range(1, len(pairs)):
            window.append(rng.randint(window[-1], k) if windows and rng.random() < 0.6 else window[-1])
        made.append(episode(pairs, task=task, member=member, window=window))
    return made


def acted(e: Episode) -> list[tuple[list[int], int]]:
    """What was in sight before each action token, by the rule the noun states, and the token that was sampled then."""
    found: list[tuple[list[int], int]] = []
    for k, turn in enumerate(e.turns):
        visible = [other for j, other in enumerate(e.turns[:k]) if j == 0 or j >= turn.window_start]
        before = [i for other in visible for i in (*other.observation_ids, *other.action_ids)]
        before += turn.observation_ids
        for token in turn.action_ids:
            found.append((list(before), token))
            before.append(token)
    return found
