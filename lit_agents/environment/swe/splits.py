"""Which tasks there are, by spec and split.

``generated``: bugs in packages, which take turns, see `factory`; a package serves one split, but the training packages serve
both ``sft`` and ``train``. ``generated-small``: those of one line in a short function. ``rows``: verified rows of SWE-Gym's
schema, see `verify`; ``rows:getmoto/moto+python/mypy``: those of two repositories. The split of a row is a matter of
its name; those of test sets are in ``test`` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

from lit_agents.environment.swe.generate.generator import Factory
from lit_agents.environment.swe.generate.pypi import Package
from lit_agents.environment.swe.task import HELD_OUT, Problem
from lit_agents.errors import BadInput
from lit_agents.system.files import name_of_file
from lit_agents.types import Task

SPLITS = ("train", "sft", "validation", "test")
ROW_SPLITS = ("train",) * 6 + ("sft",) * 2 + ("validation", "test")
"""Of ten rows."""
LABELS = ("package", "operator", "failing", "distance")


def generated_tasks(
    spec: str, split: str, count: int, packages: Mapping[str, list[str]], factory: Factory
) -> list[Task]:
    """The first tasks, made if they are not there.

    Raises:
        BadInput: an unknown spec, no package for the split, or packages that do not give so many.
    """
    if spec not in ("generated", "generated-small"):
        raise BadInput("spec", f"there is no {spec!r}.", "Choose generated, generated-small or rows.")
    releases = [Package.parsed(text) for text in packages.get("train" if split == "sft" else split, [])]
    if not releases:
        raise BadInput("packages", f"there is none for {split}.", f"Name some under {split}.")
    each, found, before = -(-count // len(releases)), list[Task](), -1
    while len(found) < count:
        columns = [_of_package(release, spec, split, each, factory) for release in releases]
        found = [task for row in zip_longest(*columns) for task in row if task]
        if len(found) == before:
            reason = f"{len(releases)} packages give {len(found)} tasks of {spec}, not {count}."
            raise BadInput("packages", reason, f"Ask for fewer, or name more packages under {split}.")
        before, each = len(found), each + max(4, each // 2)
    return found[:count]


def row_tasks(spec: str, folder: Path, split: str, count: int) -> list[Task]:
    """Verified rows of all or some repositories, in the order of their names' hashes.

    Raises:
        BadInput: there are not so many.
    """
    found = []
    _, _, named = spec.partition(":")
    repositories = {repo.lower() for repo in named.split("+") if repo}
    for path in folder.glob("*.json"):
        problem = Problem.load(path)
        if repositories and problem.repo.lower() not in repositories:
            continue
        if path.stem != name_of_file(problem.id):
            continue  # a copy under another name
        number = int(hashlib.sha256(problem.id.encode(errors="surrogatepass")).hexdigest(), 16)
        held_out = problem.labels.get(HELD_OUT) == "True"
        if ("test" if held_out else ROW_SPLITS[number % 10]) == split:
            found.append((number, path))
    if len(found) < count:
        reason = f"{len(found)} rows of {spec} that can be used here are in {split}, not {count}."
        raise BadInput("rows", reason, "Verify more: python -m lit_agents.tasks swe --rows FILE")
    return [_task(spec, split, path, Problem.load(path)) for _, path in sorted(found)[:count]]


def _of_package(release: Package, spec: str, split: str, each: int, factory: Factory) -> list[Task]:
    """Those of one split among the first of a package; the training packages' are dealt out in turns."""
    double = split in ("sft", "train")
    paths = factory.problems(release, 2 * each if double else each, small=spec == "generated-small")
    paths = paths[split == "train" :: 2] if double else paths
    return [_task(spec, split, path, Problem.load(path)) for path in paths]


def _task(spec: str, split: str, path: Path, problem: Problem) -> Task:
    labels = {name: value for name, value in problem.labels.items() if spec.startswith("rows") or name in LABELS}
    return Task(spec, problem.id, split, str(path), problem.digest(), labels=labels)
