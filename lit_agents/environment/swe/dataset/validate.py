"""Which rows can be trusted here: the known fix makes the tests pass that should, in the sandbox that episodes will have."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from lit_agents.environment.swe.dataset.checkout import patched, repository
from lit_agents.environment.swe.dataset.install_specs import IN_IMAGE, Specs, spec_of
from lit_agents.environment.swe.dataset.rows import Row
from lit_agents.environment.swe.file_tree import Change, File, Tree, changed, packed
from lit_agents.environment.swe.generate.hints import without_text
from lit_agents.environment.swe.generate.pypi import is_test
from lit_agents.environment.swe.grading import graded
from lit_agents.environment.swe.pytest_runner import Ran, cut, reason, run_tests, steady
from lit_agents.environment.swe.task import HELD_OUT, Problem, Requirements, save_tree
from lit_agents.errors import BadInput
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.types import Runtime, SandboxError

TOOK = re.compile(r" in \d+(\.\d+)?s\b.*")
"""At the end of pytest's last line: no two calls say the same."""
CASE = re.compile(r"^[ +]\[case ([^\]]+)\]", re.MULTILINE)


@dataclass(frozen=True)
class How:
    """How rows are verified.

    Attributes:
        folder: where trees, clones and problems are kept.
        sources: by ``owner/name``, or under ``*`` for all others, where a row's files come from.
        specs: how repositories are installed.
        sandbox: makes a new one, not open, in which tests are run.
        runtime: what they need.
        row_seconds: what all test runs of a row may take together, and each command that fetches or installs something.
        workers: how many rows are tried at once.
    """

    folder: Path
    sources: Mapping[str, list[str]]
    specs: Specs
    sandbox: Callable[[], Sandbox]
    runtime: Callable[[Sandbox, Requirements, Tree], Runtime]
    row_seconds: float
    workers: int

    def files_of(self, row: Row, sandbox: Sandbox) -> dict[str, File]:
        """The repository of a row at its commit, however its name is spelled."""
        named = {name.lower(): sources for name, sources in self.sources.items()}
        sources = named.get(row.repo.lower()) or named.get("*", [])
        image_files = partial(sandbox.image_files, row.image)
        return repository(row.repo, row.base_commit, sources, self.folder, image_files, self.row_seconds)


def verified(row: Row, how: How, sandbox: Sandbox) -> Problem:
    """A problem made of a row; its ``pass_to_pass`` are those that hold here.

    Args:
        sandbox: in which its tests are run.

    Raises:
        BadInput: why it cannot be used.
    """
    needs, test = _needs(row, how.specs, sandbox)
    wanted = sorted(set(map(cut, row.fail_to_pass)))
    tree = how.files_of(row, sandbox)
    tests, change = patched(tree, row.test_patch), patched(tree, row.patch)
    start = change if row.is_bug else {}
    fix = {path: tree.get(path) for path in change} if row.is_bug else change
    begun = changed(tree, start)
    if clash := sorted(set(tests) & set(fix)):
        raise BadInput(row.instance_id, f"both patches change {clash[0]}.", "Leave it out.")
    command = _command(test, row, tests)
    budget = _Budget(row.instance_id, how.row_seconds)
    try:
        sandbox.open(how.runtime(sandbox, needs, tree))
        before = _twice(sandbox, packed(changed(begun, tests)), command, budget)
        repaired = changed(changed(begun, graded(fix, begun, tests)), tests)  # as an agent's would be
        after = _twice(sandbox, packed(repaired), command, budget)
    except SandboxError as error:
        raise BadInput(row.instance_id, f"its sandbox broke ({error}).", "Try again.") from error
    flipped = [test for test in wanted if test in after.always and test not in before.ever]
    if flipped != wanted:
        said = TOOK.sub("", reason(after.last.done.output))
        why = f"{len(flipped)} of {len(wanted)} tests fail without the fix and pass with it ({said})."
        raise BadInput(row.instance_id, why, "Leave it out, or use its image.")
    kept = sorted(set(map(cut, row.pass_to_pass)) & before.always & after.always)
    return Problem(
        id=row.instance_id,
        repo=row.repo,
        statements=(row.problem_statement,) if row.problem_statement.strip() else without_text(wanted),
        tree=save_tree(how.folder / "trees", tree),
        start=start,
        fix=fix,
        tests=tests,
        fail_to_pass=tuple(wanted),
        pass_to_pass=tuple(kept),
        command=command,
        seconds=after.last.done.seconds,
        requirements=needs,
        labels={"repo": row.repo, "files": str(len(fix)), "failing": str(len(wanted)), HELD_OUT: str(row.held_out)},
        made_of=digest_of(row),
    )


def _needs(row: Row, specs: Specs, sandbox: Sandbox) -> tuple[Requirements, str]:
    """What its tests need, and how they are run; refused first is what needs no repository to be seen."""
    if not row.fail_to_pass:
        raise BadInput(row.instance_id, "it names no FAIL_TO_PASS test.", "Leave it out.")
    if not row.problem_statement.strip() and not row.is_bug:
        raise BadInput(row.instance_id, "it has no problem statement (null or empty).", "Leave it out.")
    spec = spec_of(row.repo, row.version, specs)
    if spec is None and sandbox.RUNS_IMAGES and row.image:
        spec = IN_IMAGE
    if spec is None:
        reason = f"nothing says how {row.repo} is installed here: name a file that does (--recipes FILE)"
        way_out = "or run its published image (--sandbox lit_agents.sandbox.docker.DockerSandbox)."
        raise BadInput(row.instance_id, f"{reason}, {way_out}", "")
    key = f"{row.repo} {row.version}"
    return Requirements(row.image, spec.python, spec.install, spec.variables, key, spec.commands), spec.test


class _Budget:
    """What is left of the time that the tests of a row have; waiting for a turn takes nothing of it."""

    def __init__(self, row: str, seconds: float) -> None:
        self._row, self._all, self._left = row, seconds, seconds

    def run(self, sandbox: Sandbox, command: str) -> Ran:
        ran = run_tests(sandbox, command, self._left)
        self._left -= ran.done.seconds
        if ran.done.timed_out or self._left <= 0:
            reason = f"four runs of its tests do not end in {self._all:g} seconds."
            raise BadInput(self._row, reason, "Raise row_seconds, or leave it out.")
        return ran


@dataclass(frozen=True)
class _Twice:
    """Two runs of the same tests on the same code: a test that draws lots proves nothing.

    Attributes:
        always: what passed in both.
        ever: what passed in either.
    """

    always: frozenset[str]
    ever: frozenset[str]
    last: Ran


def _twice(sandbox: Sandbox, archive: bytes, command: str, budget: _Budget) -> _Twice:
    runs = []
    for _ in range(2):
        sandbox.reset(archive)
        runs.append(budget.run(sandbox, command))
    first, second = (run.passed for run in runs)
    return _Twice(steady(first & second, first, second), first | second, runs[1])


def digest_of(row: Row) -> str:
    """Of all that a row says; what set it was found in is not of the row."""
    return hashlib.sha256(json.dumps(asdict(row) | {"held_out": False}, sort_keys=True).encode()).hexdigest()


def _command(test: str, row: Row, tests: Change) -> str:
    """The tests of the files that the test patch touches, or without one of those that are named; of mypy's, the cases.

    A file that is only renamed is touched, too.
    """
    there = [path for path, file in tests.items() if file is not None]
    touched = [path for path in there if is_test(path) or path.endswith((".py", ".test"))]
    if any(path.endswith(".test") for path in touched) and (cases := dict.fromkeys(CASE.findall(row.test_patch))):
        return f"{test} -k {shlex.quote(' or '.join(cases))}"
    named = [test_id.partition("::")[0] for test_id in (*row.fail_to_pass, *row.pass_to_pass) if "::" in test_id]
    files = [path for path in touched if path.endswith(".py")] or sorted(set(named))
    return f"{test} {shlex.join(files)}"
