"""Which tasks are next: every task once in a new order, then again. A function of the iteration alone, so nothing to save."""

from __future__ import annotations

from collections.abc import Sequence

from lit_agents.rng import stream
from lit_agents.types import Task


class TaskSampler:
    """Walks through shuffled passes over the tasks.

    Args:
        tasks: what to choose from.
        seed: orders every pass.
        per_iteration: tasks an iteration takes.
    """

    def __init__(self, tasks: Sequence[Task], seed: int, per_iteration: int) -> None:
        self._tasks, self._seed, self._per_iteration = tasks, seed, per_iteration

    def take(self, iteration: int, round_: int, count: int | None = None) -> list[Task]:
        """An iteration's tasks; replacements for groups without signal, in later rounds, are drawn at random.

        Args:
            count: of a last iteration that has fewer or more than the others.
        """
        count = count or self._per_iteration
        if round_:
            drawn = stream("resample", self._seed, iteration, round_).integers(len(self._tasks), size=count)
            return [self._tasks[int(i)] for i in drawn]
        first = iteration * self._per_iteration
        return [self._at(position) for position in range(first, first + count)]

    def distinct(self, iteration: int, count: int) -> int:
        """How many different tasks have been taken when an iteration has taken so many."""
        return min(len(self._tasks), iteration * self._per_iteration + count)

    def _at(self, position: int) -> Task:
        around, place = divmod(position, len(self._tasks))
        order = stream("tasks", self._seed, around).permutation(len(self._tasks))
        return self._tasks[int(order[place])]
