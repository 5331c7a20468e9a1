"""Do the splits of a run share a task? Tasks are compared by their content, whatever they are called.

The content of a task is the hash of its files (`Task.sha256`, or its file or folder is hashed here). Where there is no hash,
and where several tasks of one split have the same one (rows of one file), the first observation decides as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from pathlib import Path

from lit_agents.environment.base import TextEnvironment
from lit_agents.errors import BadInput
from lit_agents.types import Task

SPLITS = ("train", "sft", "validation", "test")
COMPARED = 4
"""Tasks of each other split that are compared where one split is asked for; more would have to be made for that alone."""
MOST_BEGUN = 256
"""Tasks of a set, from the first one on, whose first observation is asked for at most. Those behind them are not compared
if they have no hash of their own."""
WAY_OUT = (
    "Let `tasks` serve other tasks for each split. Tasks that differ only in what the first observation does not show need a "
    "`sha256` each, of what they are made from."
)

FirstObservations = Callable[[Sequence[Task]], Sequence[str | None]]
"""The first observation of each task; None where an episode cannot be begun."""


@dataclass(frozen=True)
class TaskSet:
    """Tasks that a run uses in one role."""

    split: str
    tasks: Sequence[Task]


@dataclass(frozen=True)
class Overlap:
    """Two sets with tasks in common, or one set (then both splits are the same) with tasks that are in it twice."""

    splits: tuple[str, str]
    pairs: tuple[tuple[Task, Task], ...]

    @property
    def sentence(self) -> str:
        """What is shared, with one example."""
        (first, second), (one, other) = self.splits, self.pairs[0]
        why = "the same files" if one.sha256 and one.sha256 == other.sha256 else "the same content"
        count = f"{len(self.pairs)} task{'s' if self.pairs[1:] else ''}"
        if first == second:
            return f"split {first} has {count} more than once, e.g. {one.id} and {other.id} ({why})."
        return f"splits {first} and {second} share {count}, e.g. {one.id} of {first} is {other.id} of {second} ({why})."


def exactly(environment: TextEnvironment, spec: str, split: str, count: int) -> list[Task]:
    """The tasks of a split, as many as are asked for.

    Raises:
        BadInput: as `TextEnvironment.tasks`, or it returned another number of tasks.
    """
    found = environment.tasks(spec, split, count)
    if len(found) < count:
        raise BadInput("count", f"{spec} has {len(found)} tasks for {split}, not {count}.", "Ask for fewer.")
    if len(found) > count:
        reason = (
            f"{type(environment).__name__}.tasks returned {len(found)} tasks of {split} where {count} were asked for."
        )
        raise BadInput("count", reason, "Let it return the first ones alone.")
    return found


def others(environment: TextEnvironment, spec: str, split: str, most: Mapping[str, int]) -> list[TaskSet]:
    """The first tasks of the other splits, at most `COMPARED` of each; a split that cannot be had is left out.

    Args:
        most: how many at most, by split; a split that is not in it is left out.
    """
    found = []
    for name in SPLITS:
        if name != split and name in most:
            found += _at_most(environment, spec, name, min(COMPARED, most[name]))
    return found


def _at_most(environment: TextEnvironment, spec: str, split: str, count: int) -> list[TaskSet]:
    for fewer in dict.fromkeys((count, 1)):
        with suppress(BadInput):  # a test set may be all that there is on this machine
            return [TaskSet(split, exactly(environment, spec, split, fewer))]
    return []


def identities(sets: Sequence[TaskSet], ask: FirstObservations) -> list[list[str | None]]:
    """For each task of each set what two tasks share exactly if they are the same one; None where nothing is known.

    An episode is begun of those tasks only that have no hash, or one that others of a split have, too.
    """
    hash_of = cache(_of_files)
    hashed = [[task.sha256 or hash_of(task.path) for task in each.tasks] for each in sets]
    several = {name for each, hashes in zip(sets, hashed, strict=True) for name in _of_several(each.tasks, hashes)}
    unclear = [[i for i, found in enumerate(hashes) if not found or found in several][:MOST_BEGUN] for hashes in hashed]
    asked = [each.tasks[i] for each, which in zip(sets, unclear, strict=True) for i in which]
    observed = iter(ask(asked) if asked else [])
    told = [{i: next(observed) for i in which} for which in unclear]
    return [
        [_identity(found, found in several, seen.get(i)) for i, found in enumerate(hashes)]
        for hashes, seen in zip(hashed, told, strict=True)
    ]


def _of_several(tasks: Sequence[Task], hashes: Sequence[str]) -> set[str]:
    """Hashes that tasks of different ids have in one split: of a file whose rows are tasks, or of a task that is there twice."""
    owners: dict[str, str] = {}
    return {found for task, found in zip(tasks, hashes, strict=True) if owners.setdefault(found, task.id) != task.id}


def _identity(of_files: str, several: bool, observation: str | None) -> str | None:
    if (not of_files or several) and observation is None:
        return None
    return hashlib.sha256(f"{of_files}\0{observation or ''}".encode(errors="surrogatepass")).hexdigest()[:16]


def _of_files(named: str) -> str:
    """Hash of a file's or folder's content; empty where there is none."""
    path = Path(named)
    if not named or not path.exists():
        return ""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\0".encode(errors="surrogateescape"))
            digest.update(file.read_bytes())
    return digest.hexdigest()


def overlaps(sets: Sequence[TaskSet], known: Sequence[Sequence[str | None]]) -> list[Overlap]:
    """What sets of different splits have in common, and what is in one set twice.

    Two sets of one split may share tasks: they are measured at two places.

    Args:
        known: see `identities`.
    """
    tables: list[dict[str, Task]] = []
    found: list[Overlap] = []
    for each, names in zip(sets, known, strict=True):
        table: dict[str, Task] = {}
        twice = []
        for task, name in zip(each.tasks, names, strict=True):
            if name is not None and name in table:
                twice.append((table[name], task))
            elif name is not None:
                table[name] = task
        tables.append(table)
        if twice:
            found.append(Overlap((each.split, each.split), tuple(twice)))
    for (first, one), (second, two) in combinations(zip(sets, tables, strict=True), 2):
        if first.split != second.split and (shared := [name for name in one if name in two]):
            found.append(Overlap((first.split, second.split), tuple((one[name], two[name]) for name in shared)))
    return found


def refuse_overlaps(sets: Sequence[TaskSet], ask: FirstObservations, where: str, count: str) -> list[list[str | None]]:
    """Refuse sets that share a task.

    Args:
        where: what names the environment.
        count: what says how many training tasks there are; training and demonstrations may take from one small set.

    Returns:
        See `identities`.

    Raises:
        BadInput: sets of two splits share a task, or a task is in one set twice.
    """
    known = identities(sets, ask)
    for found in overlaps(sets, known):
        if {*found.splits} == {"train", "sft"}:
            raise BadInput(count, found.sentence, f"Ask for fewer of both, or take a larger set. {WAY_OUT}")
        raise BadInput(where, found.sentence, WAY_OUT)
    return known
