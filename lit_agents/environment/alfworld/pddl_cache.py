"""The planning problem of a game as its planner takes it; translating takes .15 s and more, so it is kept on disk."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lit_agents.errors import BadInput
from lit_agents.system.cache import cache_folder
from lit_agents.system.files import written_beside

FORMAT = "1"
"""To be raised with any change of what is kept."""
REMEMBERED = 8
"""Translations of 2 MB that a process keeps besides."""


@dataclass(frozen=True)
class Translation:
    """What a game needs of it. Nothing in here is changed by playing."""

    sas: str
    """The problem in the planner's own format."""
    objects: Mapping[str, str]
    """Everything there is, and its type."""
    types: Sequence[tuple[str, Sequence[str]]]
    """Each type and those above it."""
    facts: Sequence[tuple[str, Sequence[str]]]
    """What holds at first and never changes: predicate and arguments."""
    parameters: Mapping[str, Sequence[tuple[str, str]]]
    """Name and type of the parameters of each action."""


@cache
def planner_version() -> str:
    """Of the package that translates, plans and keeps the state."""
    return version("fast-downward-textworld")


def translation(domain: str, problem: str, optimize: bool) -> Translation:
    """From memory, from disk, or made now.

    Args:
        domain: the rules.
        problem: objects, first state and goal.
        optimize: for planning: without what the goal does not need. Such a translation cannot be played.

    Raises:
        Exception: of many kinds, from the translator: a goal that nothing can reach, or a problem that is none.
    """
    parts = (FORMAT, planner_version(), domain, problem, str(optimize))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return _translation(key, domain, problem, optimize)


@lru_cache(REMEMBERED)
def _translation(key: str, domain: str, problem: str, optimize: bool) -> Translation:
    # whatever is wrong with what is kept, it can be made again
    with suppress(OSError, BadInput, EOFError, ValueError, TypeError, zlib.error):
        return Translation(**json.loads(gzip.decompress(_stored(key).read_bytes())))
    made = json.dumps(asdict(_made(domain, problem, optimize)))
    with suppress(OSError, BadInput):  # a disk that is full or read-only is no fault of the game: it is made each time
        path = _stored(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as beside:
            beside.write_bytes(gzip.compress(made.encode(), compresslevel=3, mtime=0))
    # what comes from disk has lists where what was made has tuples; all see the same
    return Translation(**json.loads(made))


def _stored(key: str) -> Path:
    return cache_folder("alfworld") / "translations" / key[:2] / f"{key}.json.gz"


def _made(domain: str, problem: str, optimize: bool) -> Translation:
    arguments = sys.argv
    try:
        task, sas = importlib.import_module("fast_downward").pddl2sas(domain, problem, optimize=optimize)
    finally:
        sys.argv = arguments  # the translator takes its options from there
    facts = [] if optimize else [fact for atom in task.init if (fact := _fact(atom))]
    return Translation(
        sas,
        {o.name: o.type_name for o in task.objects},
        [(kind.name, list(kind.supertype_names)) for kind in task.types],
        facts,
        {action.name: [(p.name, p.type_name) for p in action.parameters] for action in task.actions},
    )


def _fact(atom: Any) -> tuple[str, list[str]] | None:
    """An atom of the first state, or what an assignment of it says unless that is a number."""
    if hasattr(atom, "predicate"):
        return None if atom.predicate == "=" else (atom.predicate, list(atom.args))
    name = str(atom.expression.value)
    return None if atom.fluent.symbol == "total-cost" or name.isdigit() else (name, list(atom.fluent.args))
