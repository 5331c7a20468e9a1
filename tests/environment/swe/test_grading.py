"""Whose fault it is where a repair cannot be tested."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lit_agents.environment.swe import generated_tests as written_tests
from lit_agents.environment.swe.dataset.venv import runtime
from lit_agents.environment.swe.file_tree import File, unpacked
from lit_agents.environment.swe.grading import Grade, does_something, judged
from lit_agents.environment.swe.task import Problem
from lit_agents.sandbox.cleanup import remove
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Ended, Runtime, SandboxError, Unreadable
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


@pytest.mark.parametrize(
    ("ends", "found"),
    [([0.5], 0.5), ([BROKEN, 1.0, 0.25], 0.25), ([BROKEN, 1.0, BROKEN, 1.0], 0.0), ([BROKEN, BROKEN], None)],
)
def test_who_is_to_blame_where_written_tests_cannot_be_run(monkeypatch, ends: list, found: float | None):
    left, put = iter(ends), []

    def passed(files, sandbox) -> float:
        end = next(left)
        if isinstance(end, SandboxError):
            raise end
        return end

    monkeypatch.setattr(written_tests, "written_passed", passed)
    sandbox = SubprocessSandbox()
    monkeypatch.setattr(sandbox, "reset", lambda archive: put.append(set(unpacked(archive))))
    change = {"b": File(b""), f"{written_tests.FOLDER}/test_x.py": File(b""), written_tests.FOLDER: File(b"")}
    if found is None:
        with pytest.raises(SandboxError):
            written_tests.judged_by({}, {"a": File(b"")}, change, sandbox)
    else:
        assert written_tests.judged_by({}, {"a": File(b"")}, change, sandbox) == found
    assert put == [{"a", "b"}, {"a"}, {"a", "b"}, {"a"}][: len(ends)]


def test_a_work_folder_that_a_broken_sandbox_does_not_give_out_is_nobodys_fault(monkeypatch):
    with SubprocessSandbox() as sandbox:
        sandbox.open(Runtime())
        (Path(sandbox.work) / "locked").write_text("")
        (Path(sandbox.work) / "locked").chmod(0)  # not to be read, unless by root
        assert set(unpacked(sandbox.get())) <= {"locked"} and unpacked(sandbox.get(["./nowhere"])) == {}

        def cannot(argv, variables, stdin, timeout, sink) -> Ended:
            sink.write(b"bwrap: out of something")
            return Ended(1)

        monkeypatch.setattr(sandbox, "execute", cannot)
        with pytest.raises(SandboxError, match="out of something") as broken:
            sandbox.get()
        assert not isinstance(broken.value, Unreadable)


def test_a_folder_is_removed_however_deep_it_is(tmp_path: Path):
    home, here = tmp_path / "home", os.open(tmp_path, os.O_RDONLY)
    for name in ["home"] + ["deep"] * 1500:
        os.mkdir(name, 0o700, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove("folder", str(home))
    assert not home.exists()


def test_a_huge_file_is_not_taken_apart(monkeypatch):
    monkeypatch.setattr("lit_agents.environment.swe.grading.parsed", lambda text: pytest.fail("it was"))
    text = b"x = 1\n" * 100_000
    assert does_something({"a.py": File(text + b"#")}, {"a.py": File(text)})


def test_a_folder_in_the_place_of_a_file_that_is_put_back_repairs_nothing(home: Path, tasks: list[Task]):
    problem = Problem.load(Path(tasks[0].path))
    before = problem.before(home / "trees") | {"setup.cfg": File(b"")}
    with SubprocessSandbox() as sandbox:
        sandbox.open(runtime(problem.requirements, home / "venvs", False, before))
        found = judged(problem, before, {"setup.cfg": None, "setup.cfg/x": File(b"")}, sandbox)
    assert found == NOTHING
