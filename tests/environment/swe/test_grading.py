"""Whose fault it is where a repair cannot be tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_agents.environment.swe.grading import Grade, judged
from lit_agents.environment.swe.problem import Problem
from lit_agents.environment.swe.runtimes import runtime
from lit_agents.environment.swe.sandbox.terms import SandboxError
from lit_agents.environment.swe.sandbox.trusted import SubprocessSandbox
from lit_agents.environment.swe.tree import File
from lit_agents.types import Task

GOOD, NOTHING = Grade(1.0, 1.0, 1.0, True, True), Grade(0.0, 0.0, 0.0, False, False)
BROKEN = SandboxError("gone")


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        ([GOOD], GOOD),
        ([BROKEN, NOTHING, GOOD], GOOD),  # an engine that failed once is no zero
        ([BROKEN, NOTHING, BROKEN, NOTHING], NOTHING),  # what was changed keeps the tests from being run, every time
        ([BROKEN, BROKEN], None),  # nothing can be tested in there
    ],
)
def test_who_is_to_blame_where_tests_cannot_be_run(monkeypatch, tasks: list[Task], ends: list, found: Grade | None):
    tested, left = [], iter(ends)

    def grade(problem, before, change, sandbox) -> Grade:
        tested.append(change)
        end = next(left)
        if isinstance(end, SandboxError):
            raise end
        return end

    monkeypatch.setattr("lit_agents.environment.swe.grading.grade", grade)
    problem, change = Problem.load(Path(tasks[0].path)), {"a": None}
    if found is None:
        with pytest.raises(SandboxError):
            judged(problem, {}, change, SubprocessSandbox())
    else:
        assert judged(problem, {}, change, SubprocessSandbox()) == found
    assert tested == [change, {}, change, {}][: len(ends)] and next(left, None) is None


def test_a_folder_in_the_place_of_a_file_that_is_put_back_repairs_nothing(home: Path, tasks: list[Task]):
    problem = Problem.load(Path(tasks[0].path))
    before = problem.before(home / "trees") | {"setup.cfg": File(b"")}
    with SubprocessSandbox() as sandbox:
        sandbox.open(runtime(problem.requirements, home / "venvs", False, before))
        found = judged(problem, before, {"setup.cfg": None, "setup.cfg/x": File(b"")}, sandbox)
    assert found == NOTHING
