"""What a repair is worth: the agent's changes on a fresh copy, with the tests as they should be, and every test that counts."""

from __future__ import annotations

import ast
import re
import sys
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath

from lit_agents.environment.base import Transition
from lit_agents.environment.swe.cheat_check import Trial
from lit_agents.environment.swe.file_tree import Change, Tree, changed, changes, unpacked
from lit_agents.environment.swe.generate.pypi import is_test
from lit_agents.environment.swe.generated_tests import TestWriter, judged_by
from lit_agents.environment.swe.pytest_runner import share
from lit_agents.environment.swe.python_ast import parsed
from lit_agents.environment.swe.task import Problem
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.types import SandboxError, Unreadable

CONFIGURES = re.compile(
    r"(^|/)(conftest\.py|\.?pytest\.(ini|toml)|tox\.ini|setup\.cfg|pyproject\.toml|(site|user)customize\.py|[^/]*\.pth)$"
)
"""What steers pytest or Python itself: graded as it was."""
MACHINERY = frozenset(
    {"pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py", "exceptiongroup", "tomli"}
    | {"hypothesis", "_hypothesis_pytestplugin", "_hypothesis_ftz_detector", "_hypothesis_globals", "sortedcontainers"}
    | {"attr", "attrs", "xdist", "execnet", "pytest_asyncio", "pytest_mock", "pytest_cov", "coverage", "anyio"}
)
NO_SOURCE = re.compile(r"\.(py[cod]|so)$")
"""Modules whose source nobody can read."""
PATIENCE = 10.0
"""How many times longer than it should the tests may take; what has not ended by then has failed."""
LEAST = 60.0
MOST_PARSED = 500_000
"""Characters of a file that is looked into; a tree takes 400 times as many bytes, outside the sandbox."""


@dataclass(frozen=True)
class Grade:
    """How a repair was judged.

    Attributes:
        passed: which part of all tests that count passed, 0 to 1.
        repaired: which part of those that failed at first.
        kept: which part of those that passed at first; 1 if there are none.
        resolved: all of them passed.
        ended: the tests came to their end in time.
        cheated: tests passed for another reason than what the code does; nothing of it counts.
    """

    passed: float
    repaired: float
    kept: float
    resolved: bool
    ended: bool
    cheated: bool = False


def grade(problem: Problem, before: Tree, change: Change, sandbox: Sandbox) -> Grade:
    """Run the tests that count on a fresh copy, and find out whether they passed in earnest.

    Args:
        before: the repository as the agent found it.
        change: what the agent did to it.
    """
    tree = changed(changed(before, allowed := graded(change, before, problem.tests)), problem.tests)
    trial = Trial(problem, before, sandbox, max(LEAST, PATIENCE * problem.seconds))
    ran = trial.run(tree)
    if allowed and trial.is_cheated(tree, ran):
        return Grade(0.0, 0.0, 0.0, resolved=False, ended=not ran.done.timed_out, cheated=True)
    both = (*problem.fail_to_pass, *problem.pass_to_pass)
    kept = share(ran.passed, problem.pass_to_pass) if problem.pass_to_pass else 1.0
    passed = share(ran.passed, both)
    return Grade(passed, share(ran.passed, problem.fail_to_pass), kept, passed == 1.0, not ran.done.timed_out)


def judged(problem: Problem, before: Tree, change: Change, sandbox: Sandbox) -> Grade:
    """`grade`; what keeps the tests from being started at all has repaired nothing.

    Nobody is believed at once: it has to fail twice, while the repository as it was found can be tested.

    Raises:
        SandboxError: that cannot be tested either.
    """
    for _ in range(2):
        try:
            return grade(problem, before, change, sandbox)
        except SandboxError:
            grade(problem, before, {}, sandbox)
    return Grade(0.0, 0.0, 0.0, resolved=False, ended=False)


def graded(change: Change, before: Tree, tests: Change) -> Change:
    """What of a change counts: neither what steers its own test nor what stands where a folder of the repository should be."""
    folders = {str(parent) for path in (*before, *tests) for parent in PurePosixPath(path).parents}
    return {path: file for path, file in change.items() if path not in folders and not steers(path, before)}


def does_something(change: Change, before: Tree) -> bool:
    """Whether a change is more than comments and new files that nothing reads."""
    for path, file in change.items():
        there = before.get(path)
        if not path.endswith(".py"):
            if there is not None and there != file:
                return True
            continue
        texts = [each.data.decode(errors="replace") if each else "" for each in (there, file)]
        if _shape(texts[0]) != _shape(texts[1]):
            return True
    return False


def _shape(text: str) -> str:
    if len(text) > MOST_PARSED:
        return text
    try:
        return ast.dump(parsed(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text


def steers(path: str, before: Tree) -> bool:
    """Whether a file would change how it is tested: the tests, their settings, or a new module in the place of the machinery."""
    if is_test(path) or CONFIGURES.search(path) or NO_SOURCE.search(path):
        return True
    parts = path.removeprefix("src/").split("/")
    new = path not in before and (parts[0].split(".")[0] in MACHINERY | sys.stdlib_module_names)
    beside = [f"{parent}.py" for parent in PurePosixPath(path).parents]  # a folder would be imported instead
    return new or any(is_test(other) and other in before for other in beside)


def submitted(problem: Problem, before: Tree, sandbox: Sandbox, writer: TestWriter | None) -> Transition:
    """Judge what is in the sandbox, which is reset for it; the signals are described in `SweGym`.

    Args:
        before: the repository as the agent found it.
        writer: of more tests, if there are to be any.

    Raises:
        SandboxError: the repository cannot be tested, whatever the agent did.
    """
    good, bad = len(problem.pass_to_pass), len(problem.fail_to_pass)
    passed_before = good / (good + bad)
    try:
        change = changes(before, unpacked(sandbox.get()))
    except (Unreadable, tarfile.ReadError) as error:  # whoever made the work folder unreadable has repaired nothing
        nothing = {"resolved": False, "passed": 0.0, "repaired": 0.0, "kept": 0.0, "changed": False}
        signals = {**nothing, "passed_before": passed_before, "tests_ended": False, "cheated": False}
        return Transition(f"It cannot be read: {error}", 0.0, terminated=True, lost=True, signals=signals)
    counted = graded(change, before, problem.tests)
    found = judged(problem, before, counted, sandbox)
    signals = {
        "resolved": found.resolved,
        "passed": found.passed,
        "passed_before": passed_before,
        "repaired": found.repaired,
        "kept": found.kept,
        "changed": does_something(counted, before),
        "tests_ended": found.ended,
        "cheated": found.cheated,
    }
    if writer is not None and not found.cheated and (written := writer.write(problem, before, sandbox)):
        signals["written_passed"] = judged_by(written, before, counted, sandbox)
    said = "All tests pass." if found.resolved else "Some tests fail."
    said = "The tests do not say what the code does: nothing of it counts." if found.cheated else said
    score, lost = float(found.resolved), not found.resolved
    return Transition(said, score, terminated=True, won=found.resolved, lost=lost, signals=signals)
