"""Intervals that know of seeds and of tasks: both are drawn again, each from those there are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lit_agents.evaluation.stats.intervals import wilson
from lit_agents.evaluation.stats.pass_at_k import Tally

DRAWS = 10_000
LEVEL = 0.95
FEW = 5


def rates(tallies: Sequence[Tally]) -> NDArray[np.float64]:
    """(seeds, tasks) share of a task's episodes that were won; nan where none was played.

    Args:
        tallies: one for each seed.
    """
    tasks = list(dict.fromkeys(task for tally in tallies for task in tally))
    table = np.full((len(tallies), len(tasks)), np.nan)
    for row, tally in enumerate(tallies):
        for column, task in enumerate(tasks):
            if task in tally and tally[task][1]:
                table[row, column] = tally[task][0] / tally[task][1]
    return table


def interval(table_ST: NDArray[np.float64], draws: int = DRAWS) -> tuple[float, float, float]:
    """The mean over seeds and tasks, and its 95 % percentile interval.

    Seeds and tasks are drawn with replacement independently of each other (a crossed, or pigeonhole, bootstrap; Owen 2007),
    since all seeds meet the same tasks. It errs on the wide side for independent noise, and with fewer than five seeds it
    is a rough guide to what another seed would give. Always the same random numbers.

    Args:
        table_ST: (seeds, tasks); nan is left out.

    Raises:
        ValueError: there is nothing in it.
    """
    if table_ST.size == 0 or np.isnan(table_ST).all():
        raise ValueError("an interval of nothing")
    stream = np.random.Generator(np.random.Philox(0))
    seeds, tasks = table_ST.shape
    known_ST, filled_ST = ~np.isnan(table_ST), np.nan_to_num(table_ST)
    # how often each was drawn, instead of which ones: two products of small matrices
    seed_DS = stream.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws).astype(float)
    task_DT = stream.multinomial(tasks, np.full(tasks, 1 / tasks), size=draws).astype(float)
    won_D = np.einsum("ds,st,dt->d", seed_DS, filled_ST, task_DT, optimize=True)
    played_D = np.einsum("ds,st,dt->d", seed_DS, known_ST.astype(float), task_DT, optimize=True)
    means_D = won_D[played_D > 0] / played_D[played_D > 0]
    low, high = np.quantile(means_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(filled_ST.sum() / known_ST.sum()), float(low), float(high)


def success(tallies: Sequence[Tally]) -> tuple[float, float, float]:
    """The success rate over seeds and tasks with its `interval`; if few tasks tell of it, no narrower than Wilson's.

    Drawing again cannot find what was hardly ever seen: fewer than `FEW` tasks that were ever won, or ever lost. Wilson's is over
    the tasks, as runs of one task are no independent trials.

    Raises:
        ValueError: nothing was played.
    """
    table_ST = rates(tallies)
    mean, low, high = interval(table_ST)
    ever_won = {task for tally in tallies for task, (won, _) in tally.items() if won}
    ever_lost = {task for tally in tallies for task, (won, played) in tally.items() if won < played}
    if min(len(ever_won), len(ever_lost)) < FEW:
        lowest, highest = wilson(mean * table_ST.shape[1], table_ST.shape[1])
        return mean, min(low, lowest), max(high, highest)
    return mean, low, high


def difference(first: Sequence[Tally], second: Sequence[Tally]) -> tuple[float, float, float]:
    """The first minus the second, seed by seed and task by task; `interval` of the differences.

    Where fewer than `FEW` tasks differ, or all differ alike, drawing again finds too little doubt; then it is no narrower than
    Newcombe's (1998) for the share of tasks on which the first was better minus that on which it was worse: the squares of what
    Wilson's intervals leave on either side are added up.

    Raises:
        ValueError: not as many seeds, or no task in common.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} seeds cannot be paired")
    shared = [task for task in first[0] if all(task in tally for tally in (*first, *second))]
    one, other = (rates([{task: tally[task] for task in shared} for tally in each]) for each in (first, second))
    mean, low, high = interval(one - other)
    gain_T = np.nan_to_num(one - other).mean(axis=0)
    better, worse = int((gain_T > 0).sum()), int((gain_T < 0).sum())
    if better + worse < FEW or low == high:
        shares = (better / len(shared), worse / len(shared))
        (least, most), (lost_least, lost_most) = (wilson(count, len(shared)) for count in (better, worse))
        below = math.hypot(shares[0] - least, lost_most - shares[1])
        above = math.hypot(most - shares[0], shares[1] - lost_least)
        return mean, max(-1.0, min(low, mean - below)), min(1.0, max(high, mean + above))
    return mean, low, high
