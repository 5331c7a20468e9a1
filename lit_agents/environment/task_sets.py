"""A set of tasks: made, compared with other splits, and played by the expert."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

from lit_agents.environment.base import TextEnvironment
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.environment.split_overlap import SPLITS, TaskSet, exactly, others, refuse_overlaps
from lit_agents.errors import BadInput
from lit_agents.types import Task

PACKAGE = "lit_agents.environment"


AT_ONCE = 16


TURNS = 200


PATIENCE = 1800.0  # seconds for an answer: repairs are tested by whole suites, and wait for each other


Answer = TypeVar("Answer")


def environment_class(name: str) -> type[TextEnvironment]:
    """What ``textworld`` or ``my_package.worlds.MyWorld`` names.

    Raises:
        BadInput: no environment, or several.
    """
    path, _, attribute = name.rpartition(".") if "." in name else (f"{PACKAGE}.{name}", "", "")
    way_out = f"Give a module of {PACKAGE} that holds one, or a class path such as pkg.mod.Class."
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise BadInput(name, f"it cannot be imported ({error}).", way_out) from error
    found = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, TextEnvironment) and not inspect.isabstract(value)
        if (key == attribute if attribute else value.__module__.startswith(path))
    ]
    if len(found) != 1:
        names = ", ".join(f"{path}.{value.__name__}" for value in found) or "none"
        raise BadInput(name, f"it should hold one environment and holds {len(found)} ({names}).", way_out)
    return found[0]


def make_tasks(
    environment: TextEnvironment, spec: str, split: str, count: int, played: int, turns: int, always: str | None
) -> str:
    """Make what is missing; say what there is now, and whether it can be won.

    Raises:
        BadInput: as `TextEnvironment.tasks`, or a world breaks.
    """
    tasks = exactly(environment, spec, split, count)
    compared = compared_with(environment, spec, TaskSet(split, tasks))
    digest = hashlib.sha256("\n".join(f"{task.id} {task.sha256}" for task in tasks).encode()).hexdigest()
    folders = [os.path.dirname(task.path) for task in tasks if task.path]
    where = f" in {os.path.commonpath(folders)}" if folders else ""
    sample = tasks[:played]
    won = wins(environment, sample, turns, always)
    who = "the expert" if always is None else f"always saying {always!r}"
    said = f"{who} won {won} of {len(sample)} played, each in at most {turns} turns"
    said = "no expert to play them" if won is None else said
    return f"{len(tasks)} tasks of {spec}, split {split}{where}; set {digest[:16]}; {compared}; {said}"


def compared_with(environment: TextEnvironment, spec: str, tasks: TaskSet) -> str:
    """Compare tasks with the first ones of the other splits; says with which.

    Raises:
        BadInput: they share one, or a task is there twice.
    """
    found = others(environment, spec, tasks.split, dict.fromkeys(SPLITS, len(tasks.tasks)))
    with EnvPool(environment, AT_ONCE, step_timeout=PATIENCE, reset_timeout=PATIENCE) as pool:
        refuse_overlaps([tasks, *found], pool.first_observations, type(environment).__name__, "--count")
    named = ", ".join(f"{len(each.tasks)} of {each.split}" for each in found)
    return f"none is among the first {named}" if found else "no other split to compare with"


def wins(
    environment: TextEnvironment, tasks: Sequence[Task], turns: int = TURNS, always: str | None = None
) -> int | None:
    """How many of the tasks the environment's expert wins in so many turns; None if it has none.

    Args:
        always: what is said at every turn instead of the expert's action, for a floor.

    Raises:
        BadInput: a world breaks.
    """
    won = 0
    places = min(max(len(tasks), 1), AT_ONCE)
    with EnvPool(environment, places, step_timeout=PATIENCE, reset_timeout=PATIENCE) as pool:
        pool.expect_hints()
        for first in range(0, len(tasks), AT_ONCE):
            live = dict(enumerate(tasks[first : first + AT_ONCE]))
            _unbroken(pool.reset(live), live)
            for turn in range(turns):
                answers = dict.fromkeys(live, always) if always is not None else _unbroken(pool.ask_expert(live), live)
                actions = {number: action for number, action in answers.items() if action is not None}
                if not actions and first + turn == 0:
                    return None
                live = {number: live[number] for number in actions}  # an expert may give up
                for number, transition in _unbroken(pool.step(actions), live).items():
                    if transition.terminated or transition.truncated:
                        won += transition.won
                        del live[number]
                if not live:
                    break
    return won


def _unbroken(answers: Mapping[int, Answer | Failure], tasks: Mapping[int, Task]) -> dict[int, Answer]:
    good: dict[int, Answer] = {}
    for number, answer in answers.items():
        if isinstance(answer, Failure):
            where = tasks[number].path or tasks[number].id
            raise BadInput(where, f"{answer.stop.value}: {answer.error}", "Repair or leave out this task.")
        good[number] = answer
    return good
