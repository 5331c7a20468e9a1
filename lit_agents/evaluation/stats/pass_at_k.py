"""Several episodes of each task: one rate over all of them with an honest interval, and the chance that one of k wins."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from lit_agents.evaluation.stats.intervals import wilson
from lit_agents.types import Episode, Task

Tally = Mapping[str, tuple[int, int]]
"""By task: episodes won, and episodes played that the environment did not break."""


def tally(episodes: Iterable[Episode]) -> dict[str, tuple[int, int]]:
    """Count; in the order of the tasks. One of which every episode broke is not in it."""
    sound = [e for e in episodes if not e.stop.is_failure]
    played, won = Counter(name_of(e.task) for e in sound), Counter(name_of(e.task) for e in sound if e.won)
    return {task: (won[task], n) for task, n in played.items()}


def name_of(task: Task) -> str:
    """What tells a task from those of other families and splits; ids alone repeat."""
    return f"{task.family}/{task.split}/{task.id}"


def rate_interval(counts: Tally) -> tuple[float, float]:
    """95 % interval of the rate over all episodes (avg@k): Wilson's, with as many trials as the episodes are worth.

    Episodes of one task are alike, so k of each of T tasks are worth fewer than k T independent ones. How many follows from
    how much the tasks' rates vary (the variance of a ratio over clusters; Cochran 1977, chapter 11): never fewer than T,
    never more than there are. One episode per task is worth one.
    """
    tasks, won, n = len(counts), sum(c for c, _ in counts.values()), sum(n for _, n in counts.values())
    if n == 0:
        return 0.0, 1.0
    rate = won / n
    spread = sum((c - rate * each) ** 2 for c, each in counts.values())
    variance = spread / n**2 * tasks / max(1, tasks - 1)
    worth = min(n, max(tasks, rate * (1 - rate) / variance)) if variance else tasks
    return wilson(rate * worth, worth)


def pass_at(counts: Tally, k: int) -> tuple[float, float, float]:
    """Chance that at least one of k episodes of a task wins, averaged over tasks, with a 95 % interval.

    Unbiased: 1 - C(n - c, k) / C(n, k) for a task of which c of n episodes were won (Chen et al. 2021). The interval is
    Wilson's with tasks as trials, which is too wide rather than too narrow where the chances of the tasks are not 0 or 1.
    Tasks with fewer than k sound episodes are left out.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"pass@{k}")
    chances = [1 - math.comb(n - c, k) / math.comb(n, k) for c, n in counts.values() if n >= k]
    if not chances:
        return math.nan, 0.0, 1.0
    total = math.fsum(chances)
    return total / len(chances), *wilson(total, len(chances))
