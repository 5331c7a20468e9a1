"""Tasks made of packages: bugs put in one by one, and kept if the package's own tests notice them.

Every package has a folder: what its tests say when all is well, a problem for every bug that was kept, and ``tried.jsonl``, in
which each candidate has a line, in a fixed order. Whoever goes on, after a kill too, goes on at the next one; so the first tasks
of a package are always the same ones.
"""

from __future__ import annotations

import json
import random
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

from filelock import FileLock

from lit_agents.environment.swe.file_tree import File, Tree, changed, packed
from lit_agents.environment.swe.generate.difficulty import difficulty, is_small
from lit_agents.environment.swe.generate.hints import statements
from lit_agents.environment.swe.generate.mutations import Site, is_bug, sites
from lit_agents.environment.swe.generate.pypi import Package, code, source_of
from lit_agents.environment.swe.pytest_runner import PYTEST, files_of, run_tests, steady
from lit_agents.environment.swe.task import Problem, Requirements, load_tree, save_tree
from lit_agents.errors import BadInput
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.types import SandboxError
from lit_agents.system.files import write_whole

COMMAND = f"{PYTEST} -o addopts="
NEEDS = Requirements(install=("pytest==9.2.0 hypothesis==6.170.17",))
PATIENCE = 4.0
"""How many times longer than all was well a run of the tests may take, before a bug counts as one that never ends."""
LEAST = 10.0
MOST_DROPPED = 200
"""Candidates without a task in a row, after which a package is given up."""


@dataclass(frozen=True)
class Clean:
    """What a package's tests say when all is well.

    Attributes:
        tree: hash of its files.
        passed: tests that passed twice.
        seconds: that one run took.
    """

    tree: str
    passed: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Candidate:
    """A bug that may become a task."""

    number: int
    path: str
    site: Site


class Factory:
    """Makes tasks.

    Args:
        folder: where they are kept.
        sandbox: makes a new one, opened for `NEEDS`.
        workers: how many candidates are tried at once.
    """

    def __init__(self, folder: Path, sandbox: Callable[[], Sandbox], workers: int) -> None:
        self.folder, self._new_sandbox, self._workers = folder, sandbox, workers

    @property
    def trees(self) -> Path:
        """Where the files of packages are."""
        return self.folder / "trees"

    def problems(self, package: Package, count: int, small: bool = False) -> list[Path]:
        """The first tasks of a package, made if they are not there; fewer if it does not give more.

        Args:
            small: of the bugs that are one line in a short function, see `is_small`.

        Raises:
            BadInput: the package cannot be had, or its tests do not run.
        """
        home = self.folder / "packages" / package.title
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".lock"):
            log = home / ("tried-small.jsonl" if small else "tried.jsonl")
            tried = _tried(log)
            kept = [home / f"{row['number']:05d}.json" for row in tried if not row["dropped"]]
            if len(kept) < count and _dropped_last(tried) < MOST_DROPPED:
                wanted = f"{count - len(kept)} tasks from {package.title}"
                print(
                    f"Making {wanted} (its tests run for every bug; what is made is kept).",
                    file=sys.stderr,
                    flush=True,
                )
                try:
                    clean = self._clean(package, home)
                    tree = load_tree(self.trees, clean.tree)
                    rest = islice(candidates(package, tree, small), len(tried), None)
                    kept += self._more(package, clean, tree, rest, log, count - len(kept), _dropped_last(tried))
                except SandboxError as error:
                    reason = f"the sandbox of its tests broke ({error})."
                    raise BadInput(package.title, reason, "Try again: what was made is kept.") from error
        return kept[:count]

    def _clean(self, package: Package, home: Path) -> Clean:
        """Run the tests of a package as it is, twice."""
        path = home / "clean.json"
        if path.is_file():
            fields = json.loads(path.read_text(encoding="utf-8"))
            return Clean(fields["tree"], tuple(fields["passed"]), fields["seconds"])
        tree = source_of(package, self.folder / "archives")
        with self._new_sandbox() as sandbox:
            runs = []
            for _ in range(2):
                sandbox.reset(packed(tree))
                runs.append(run_tests(sandbox, COMMAND, 600.0))
        passed = steady(runs[0].passed & runs[1].passed, runs[0].passed, runs[1].passed)
        if not passed:
            said = runs[0].done.output.decode(errors="replace").strip()[-300:]
            raise BadInput(package.title, f"none of its tests passes as it is: {said}", "Choose another package.")
        clean = Clean(save_tree(self.trees, tree), tuple(sorted(passed)), runs[1].done.seconds)
        write_whole(path, json.dumps(vars(clean), indent=1) + "\n")
        return clean

    def _more(
        self, package: Package, clean: Clean, tree: Tree, rest: Iterator[Candidate], log: Path, count: int, dropped: int
    ) -> list[Path]:
        """Try candidates until there are so many tasks more, or no hope of any."""
        kept: list[Path] = []
        free: SimpleQueue[Sandbox] = SimpleQueue()

        def trial(candidate: Candidate) -> Problem | str:
            sandbox = free.get()
            try:
                return _tried_out(package, clean, tree, candidate, sandbox)
            finally:
                free.put(sandbox)

        opened = [self._new_sandbox() for _ in range(self._workers)]
        try:
            for sandbox in opened:
                free.put(sandbox)
            with (
                ThreadPoolExecutor(self._workers) as threads,
                log.open("a", encoding="utf-8") as lines,
            ):
                waiting: deque[tuple[Candidate, Future[Problem | str]]] = deque()
                while len(kept) < count and dropped < MOST_DROPPED:
                    while len(waiting) < 2 * self._workers and (candidate := next(rest, None)):
                        waiting.append((candidate, threads.submit(trial, candidate)))
                    if not waiting:
                        break
                    candidate, result = waiting.popleft()
                    found = result.result()
                    if isinstance(found, Problem):
                        kept.append(log.with_name(f"{candidate.number:05d}.json"))
                        found.save(kept[-1])
                    dropped = 0 if isinstance(found, Problem) else dropped + 1
                    row = {"number": candidate.number, "dropped": "" if isinstance(found, Problem) else found}
                    lines.write(json.dumps(row | {"operator": candidate.site.operator, "path": candidate.path}) + "\n")
                    lines.flush()
                for _, result in waiting:
                    result.cancel()
        finally:
            for sandbox in opened:
                sandbox.close()
        return kept


def candidates(package: Package, tree: Tree, small: bool = False) -> Iterator[Candidate]:
    """All bugs for a package, or the small ones, in a fixed random order, in which the operators take turns."""
    stream = random.Random(package.title)
    by_operator: dict[str, list[tuple[str, Site]]] = {}
    for path, text in code(tree).items():
        for site in sites(text):
            by_operator.setdefault(site.operator, []).append((path, site))
    queues = [by_operator[name] for name in sorted(by_operator)]
    for queue in queues:
        stream.shuffle(queue)
    number = 0
    while any(queues):
        for queue in queues:
            if queue:
                path, site = queue.pop()
                if not small or is_small(tree[path].data.decode(), site):
                    yield Candidate(number, path, site)
                number += 1


def _tried_out(package: Package, clean: Clean, tree: Tree, candidate: Candidate, sandbox: Sandbox) -> Problem | str:
    """A problem, or why the bug is none."""
    path, site = candidate.path, candidate.site
    before = tree[path].data.decode()
    after = site.applied(before)
    if not is_bug(before, after):
        return "the program is the same, or none"
    start = {path: File(after.encode(), tree[path].executable)}
    found = _outcome(clean, packed(changed(tree, start)), sandbox)
    if isinstance(found, str):
        return found
    failing, passing = found
    return Problem(
        id=f"{package.title}-{candidate.number:05d}",
        repo=package.title,
        statements=statements(path, site.entity, site.operator, failing),
        tree=clean.tree,
        start=start,
        fix={path: tree[path]},
        tests={},
        fail_to_pass=tuple(failing),
        pass_to_pass=tuple(passing),
        command=COMMAND,
        seconds=clean.seconds,
        requirements=NEEDS,
        labels={"package": package.name, **difficulty(path, before, site, failing, tree)},
    )


def _outcome(clean: Clean, archive: bytes, sandbox: Sandbox) -> tuple[list[str], list[str]] | str:
    """Tests that fail with a bug, and those that still pass; or why it makes no task.

    Those that fail are run again with all that is in their files: with a bug, some come out as chance will have it.
    """
    patience, tests = max(LEAST, PATIENCE * clean.seconds), frozenset(clean.passed)
    sandbox.reset(archive)
    first = run_tests(sandbox, COMMAND, patience)
    if first.done.timed_out:
        return "the tests do not end"
    if tests <= first.passed:
        return "no test fails"
    if not tests & first.passed:
        return "every test fails"
    files = files_of(tests - first.passed)
    sandbox.reset(archive)
    second = run_tests(sandbox, f"{COMMAND} {shlex.join(files)}", patience)
    if second.done.timed_out:
        return "the tests do not end"
    elsewhere = frozenset(test for test in first.passed if test.partition("::")[0] not in files)
    certain = steady(tests, first.passed, second.passed | elsewhere)
    failing, passing = sorted(certain - first.passed), sorted(certain & first.passed)
    return (failing, passing) if failing and passing else "no test fails every time"


def _tried(path: Path) -> list[dict[str, object]]:
    """What was tried so far; a line that a kill has cut is not there, and its candidate is tried again."""
    if not path.is_file():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    if len(whole) + 1 != path.stat().st_size:
        write_whole(path, whole + "\n" if whole else "")
    return [json.loads(line) for line in whole.split("\n") if line]


def _dropped_last(tried: list[dict[str, object]]) -> int:
    """How many candidates in a row have given no task, up to the last one that was tried."""
    return next((i for i, row in enumerate(reversed(tried)) if not row["dropped"]), len(tried))
