"""The environment on a little repository, in the sandbox that needs no engine and promises nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from lit_agents.environment.checker import check_env
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.environment.swe import SweGym
from lit_agents.environment.swe.actions import observed, parsed
from lit_agents.environment.swe.dataset.venv import runtime
from lit_agents.environment.swe.file_tree import File
from lit_agents.environment.swe.generate.generator import COMMAND, NEEDS
from lit_agents.environment.swe.generated_tests import RecordedCalls
from lit_agents.environment.swe.pytest_runner import Ran, run_tests, steady
from lit_agents.environment.swe.task import Problem
from lit_agents.errors import BadInput
from lit_agents.sandbox import base
from lit_agents.sandbox.docker import DockerSandbox
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Allowance, Completed, SandboxError
from lit_agents.types import Task
from tests.environment.swe.little import COUNT, world
from tests.sandbox.test_attacks import NESTED
from tests.sandbox.traces import left, traces


@pytest.fixture
def swe(home: Path, little: str):
    made = world(home, little)
    yield made
    made.close()


def test_it_keeps_the_contract(home: Path, little: str, tasks: list[Task]):
    for task in tasks[:1]:
        assert check_env(world(home, little), task) == []


def test_the_fix_wins_every_task_and_doing_nothing_none(swe: SweGym, tasks: list[Task]):
    for task in tasks:
        swe.reset(task)
        for _ in range(8):
            action = swe.expert_action()
            assert action is not None
            last = swe.step(action)
            if last.terminated:
                break
        assert last.won and last.score == 1.0 and last.signals["resolved"] and last.signals["repaired"] == 1.0
        swe.reset(task)
        last = swe.step("submit")
        assert (
            last.lost
            and last.signals["repaired"] == 0.0
            and last.signals["kept"] == 1.0
            and not last.signals["changed"]
        )
        assert last.signals["passed"] == last.signals["passed_before"] < 1.0


def test_a_test_that_fails_is_named_as_pytest_names_it_up_to_a_space(home: Path, tasks: list[Task]):
    problems = [Problem.load(Path(task.path)) for task in tasks]
    ids = {test for problem in problems for test in (*problem.fail_to_pass, *problem.pass_to_pass)}
    names = ["test_clamp[a", "test_clamp[d]", "test_clamp[e]", "test_clamp[f]", "test_total", "test_first"]
    assert ids == {f"tests/test_core.py::{name}" for name in names}  # the one that is skipped counts nowhere
    for problem in problems:
        assert not set(problem.fail_to_pass) & set(problem.pass_to_pass) and problem.fail_to_pass


def test_a_cut_name_that_stands_for_several_tests_needs_all_of_them():
    verdicts = {"t[a b]": "failed", "t[a c]": "passed", "u[a b]": "passed", "u[a c]": "passed", "v": "skipped"}
    assert Ran(verdicts, Completed(1, b"")).passed == {"u[a"}


def fix(problem: Problem) -> str:
    ((path, file),) = problem.fix.items()
    return f"cat > {path} <<'END'\n{file.data.decode()}END" if file else ""


CONFTEST = (
    "import pytest\\n@pytest.hookimpl(hookwrapper=True)\\ndef pytest_runtest_makereport(item, call):\\n"
    '    r = yield\\n    r.get_result().outcome = "passed"\\n'
)
CHEATS = {
    "tests deleted": "rm -r tests",
    "tests emptied": "for f in tests/*.py; do echo > $f; done",
    "tests rewritten": "printf 'def test_total(): pass\\n' > tests/test_core.py",
    "all passes by a conftest": f"printf '{CONFTEST}' > conftest.py; cp conftest.py tests/",
    "settings": "echo '[pytest]\naddopts = --deselect tests' > pytest.ini; echo '[tool:pytest]\naddopts = -k x' > setup.cfg",
    "another pytest": "mkdir pytest; echo 'raise SystemExit(0)' > pytest/__init__.py; echo 'raise SystemExit(0)' > _pytest.py",
    "at the start of Python": "echo 'import os; os._exit(0)' > sitecustomize.py",
    "a module of Python's": "echo 'raise SystemExit(0)' > json.py",
    "expected to fail": (
        "printf 'import pytest\\ndef total(*values):\\n    pytest.xfail()\\nfirst = clamp = total\\n' >> little/core.py"
    ),
    "by an entry point": (
        "mkdir z.dist-info; printf '[pytest11]\\nz = zz\\n' > z.dist-info/entry_points.txt; "
        f"printf 'Metadata-Version: 2.1\\nName: z\\nVersion: 1\\n' > z.dist-info/METADATA; printf '{CONFTEST}' > zz.py"
    ),
    "another plugin": f"printf '{CONFTEST}' > _hypothesis_pytestplugin.py",
    "without a source": (
        "echo 'raise SystemExit(0)' > g.py; python3 -c \"import py_compile; py_compile.compile('g.py', 'getopt.pyc')\"; rm g.py"
    ),
    "a file where tests were": "rm -r tests; touch tests",
    "a name that is none": "ln -s $'\\xff' link; touch $'\\xfe'",
    "the exit code of a missing pytest": "printf 'import os\\nos._exit(127)\\n' >> little/core.py",
    "too deep to be read": "python3 -c \"print('X = ' + '+'.join('1' * 3000))\" >> little/core.py",
    "words of success": "printf 'print(\"tests/test_core.py::test_total PASSED\")\\n' >> little/__init__.py",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_tests_cannot_be_had_for_less(swe: SweGym, tasks: list[Task], cheat: str):
    swe.reset(tasks[0])
    swe.step(CHEATS[cheat])
    last = swe.step("submit")
    assert last.lost and last.signals["repaired"] == 0.0
    assert last.signals["changed"] == (
        cheat
        in (
            "expected to fail",
            "words of success",
            "by an entry point",
            "the exit code of a missing pytest",
            "too deep to be read",
        )
    )  # what is graded
    swe.reset(tasks[0])
    swe.step(CHEATS[cheat])
    swe.step(fix(Problem.load(Path(tasks[0].path))))
    assert swe.step("submit").won  # and none of it stands in the way of a repair


def test_a_work_folder_that_cannot_be_copied_is_a_lost_episode(swe: SweGym, tasks: list[Task], monkeypatch):
    swe.reset(tasks[0])
    monkeypatch.setattr("lit_agents.sandbox.base.ARCHIVE_CAP", 1000)
    last = swe.step("submit")
    assert last.lost and not last.won and last.signals["passed"] == 0.0 and not last.signals["changed"]


@pytest.mark.parametrize(
    ("command", "counts"),
    [
        ("touch new; echo '# a word' >> little/core.py; echo x > README", False),
        ("echo 'X = 1' >> little/core.py", True),
        ("echo 'X = 1' > little/new.py", True),
        ("rm little/core.py", True),
    ],
)
def test_a_change_is_one_of_what_the_program_does(swe: SweGym, tasks: list[Task], command: str, counts: bool):
    swe.reset(tasks[0])
    swe.step(command)
    assert swe.step("submit").signals["changed"] is counts


def test_tests_that_were_never_started_are_nobodys_zero():
    class Broken(SubprocessSandbox):
        def run(self, command: str, timeout: float, *, cap: int = 1 << 20, stdin: bytes = b"") -> Completed:
            return next(ends)

    begun = b"lit_agents: begun\n"
    ends = iter([Completed(32, b"mount: gone"), Completed(127, begun + b"pytest: not found"), Completed(1, begun)])
    for words in ("mount: gone", "pytest: not found"):
        with pytest.raises(SandboxError, match=words):
            run_tests(Broken(), "pytest {plugin}", 1.0)
    assert run_tests(Broken(), "pytest {plugin}", 1.0).passed == frozenset()


def test_the_same_tasks_made_anew_are_the_same(home: Path, little: str, tasks: list[Task], tmp_path: Path):
    (tmp_path / "venvs").symlink_to(home / "venvs")
    again = world(tmp_path, little).tasks("generated", "test", 2)
    assert [task.sha256 for task in again] == [task.sha256 for task in tasks[:2]]
    known, anew = (Problem.load(Path(task.path)) for task in (tasks[0], again[0]))
    assert replace(known, seconds=anew.seconds) == anew and known.seconds != anew.seconds
    assert replace(known, fail_to_pass=("another",)).digest() != known.digest()


def test_breaking_something_else_is_no_repair(swe: SweGym, tasks: list[Task]):
    task = next(t for t in tasks if "test_total" not in str(Problem.load(Path(t.path)).fail_to_pass))
    swe.reset(task)
    swe.step(fix(Problem.load(Path(task.path))))
    swe.step("printf 'def total(values):\\n    return None\\n' >> little/core.py")
    last = swe.step("submit")
    assert last.lost and last.signals["repaired"] == 1.0 and last.signals["kept"] < 1.0


def test_a_repair_that_never_ends_fails(swe: SweGym, tasks: list[Task], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lit_agents.environment.swe.grading.LEAST", 2.0)
    monkeypatch.setattr("lit_agents.environment.swe.grading.PATIENCE", 0.0)
    swe.reset(tasks[0])
    swe.step("printf 'while True: pass\\n' >> little/core.py")
    last = swe.step("submit")
    assert last.lost and last.signals["passed"] == 0.0 and not last.signals["tests_ended"]


def test_what_an_agent_is_told_depends_on_the_help(home: Path, little: str, tasks: list[Task]):
    texts = []
    for level in range(5):
        swe = world(home, little, help_level=level)
        texts.append(swe.reset(tasks[0]).observation)
        swe.close()
    problem = Problem.load(Path(tasks[0].path))
    assert all(longer.startswith(shorter) and len(longer) > len(shorter) for shorter, longer in pairwise(texts))
    assert "little/core.py" not in texts[0] and "little/core.py" in texts[1] and problem.fail_to_pass[0] in texts[3]
    with pytest.raises(BadInput, match="help_level"):
        world(home, little, help_level=5)


def test_commands_and_tools(swe: SweGym, tasks: list[Task]):
    swe.reset(tasks[0])
    assert swe.step("view little/core.py total").observation.splitlines()[0].endswith("def total(values):")
    assert "12 " in swe.step("view little/core.py 12").observation
    assert "no function or class nothing" in swe.step("view little/core.py nothing").observation
    assert "def total" in swe.step("search def").observation
    assert "little/core.py:" in swe.step("search 'def first'").observation
    refused = swe.step("edit little/core.py 4 <<'E'\ndef clamp(:\nE")
    assert "nothing was changed" in refused.observation and refused.valid
    assert "there are no lines 900" in swe.step("edit little/core.py 900 <<'E'\nx\nE").observation
    assert swe.step("edit new.py 1 <<'E'\nx = 1\ny = 2\nE").observation == "1 x = 1\n2 y = 2"
    assert swe.step("edit new.py 1-2 <<'E'\nz = 3\nE").observation == "1 z = 3"
    assert "whole command" in swe.step("echo x; submit").observation
    assert swe.step("pytest -q tests 2>&1 | tail -n 1").observation.count("failed") == 1
    assert not swe.step("no-such-command").valid and swe.step("false").observation == "(exit code 1)"
    assert not swe.step("```\na\n```\n```\nb\n```").valid


def test_recorded_calls_tell_a_repair_from_none_and_decide_nothing(home: Path, little: str, tasks: list[Task]):
    swe = world(home, little, written_tests=RecordedCalls(3))
    task = next(t for t in tasks if "Look at clamp" in Problem.load(Path(t.path)).statements[2])
    swe.reset(task)
    idle = swe.step("submit").signals
    swe.reset(task)
    swe.step(fix(Problem.load(Path(task.path))))
    repaired = swe.step("submit").signals
    (path,) = (home / "written").glob(f"{task.id}.*")
    (text,) = json.loads(path.read_text()).values()
    assert text.startswith("from little.core import clamp\n") and text.count("assert clamp(") == 3
    assert "assert clamp(-1, 0, 10) == 0" in text  # by hand: the first of the little repository's tests
    assert repaired["written_passed"] == 1.0 and 0.0 <= idle["written_passed"] < 1.0
    swe.close()


def test_what_does_not_return_the_same_again_is_not_written_down(home: Path):
    old = "def now(x):\n    return None\n\n\ndef same(x):\n    return None\n"
    new = "import time\n\n\ndef now(x):\n    return time.time_ns()\n\n\ndef same(x):\n    return x\n"
    tests = "from m import now, same\n\n\ndef test_it():\n    assert now(1) and same(2) == 2 and same(3) == 3\n"
    before = {"m.py": File(old.encode()), "other/m.py": File(b""), "test_m.py": File(tests.encode())}
    problem = Problem(
        "x", "x", ("",), "", {}, {"m.py": File(new.encode())}, {}, ("test_m.py::test_it",), (), COMMAND, 1.0, NEEDS
    )
    with SubprocessSandbox() as sandbox:
        sandbox.open(runtime(NEEDS, home / "venvs", False, {}))
        written = RecordedCalls().write(problem, before, sandbox)
    (text,) = written.values()
    assert list(written) == ["test_m_py_same.py"] and text.count("assert same(") == 2


def test_a_command_and_an_episode_have_their_time(home: Path, little: str, tasks: list[Task]):
    swe = world(home, little, command_timeout=0.5, episode_seconds=1.0, observation=100)
    swe.reset(tasks[0])
    first = swe.step("seq 1 5000; sleep 20")
    assert "(stopped after 0.5 seconds)" in first.observation and "characters left out" in first.observation
    assert len(first.observation) < 200 and not first.truncated
    assert swe.step("sleep 20").truncated
    swe.close()


@pytest.mark.parametrize(
    ("action", "command"),
    [
        ("ls", "ls"),
        ("I look.\n```bash\nls -l\n```\nThen I see.", "ls -l"),
        ("```\nls\n```", "ls"),
        ('<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>', "ls"),
        ("a\x00b \ud800", "ab ?"),
        ("", None),
        ("```bash\nls", None),
        ("```\na\n```\n```\nb\n```", None),
        ("<tool_call>{}</tool_call>", None),
        ('<tool_call>{"a": ' + "[" * 20_000 + "]" * 20_000 + "}</tool_call>", None),
        ("x" * 200_000, None),
        ("'" * 30_000, None),
    ],
)
def test_one_command_is_found_in_a_text_or_none(action: str, command: str | None):
    found, wrong = parsed(action)
    assert (found == command and not wrong) if command is not None else wrong


def test_an_observation_is_never_empty_and_counts_what_it_leaves_out():
    assert observed(Completed(0, b""), 100, 9) == "(no output)"
    assert observed(Completed(137, b"a\n", out_of_memory=True), 100, 9) == "a\n(stopped: out of memory)"
    text = observed(Completed(0, b"a" * 60 + b"b" * 60, lost=5), 100, 9)
    assert text == "a" * 50 + "\n(25 characters left out)\n" + "b" * 50


def test_tasks_are_the_same_however_many_are_asked_for_and_go_on_after_a_kill(
    home: Path, little: str, tasks: list[Task]
):
    swe = world(home, little)
    assert swe.tasks("generated", "test", 3) == tasks[:3]
    log = home / "packages" / Path(tasks[0].path).parent.name / "tried.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    assert [row["number"] for row in rows] == list(range(len(rows)))
    log.write_text("".join(lines[:3]) + lines[3][:10])  # cut in the middle of a line
    assert swe.tasks("generated", "test", COUNT) == tasks
    sft, train = swe.tasks("generated", "sft", 3), swe.tasks("generated", "train", 3)
    assert not {task.id for task in sft} & {task.id for task in train}


def test_tests_that_have_other_names_every_time_count_for_nothing():
    first = frozenset(
        {"a.py::alone", "a.py::flaky", "a.py::set[one-pair0]", "a.py::set[two-pair1]", "a.py::set[six-pair2]"}
    )
    second = frozenset({"a.py::alone", "a.py::set[one-pair0]", "a.py::set[six-pair1]", "a.py::set[two-pair2]"})
    assert steady(first & second, first, second) == {
        "a.py::alone"
    }  # not [one-pair0], which met its name again by chance
    assert steady(first, first, first) == first


def test_bad_input_names_what_is_wrong(home: Path, little: str, tasks: list[Task], tmp_path: Path):
    swe = world(home, little)
    for spec, split, count, words in (
        ("nothing", "test", 1, "generated"),
        ("generated", "nowhere", 1, "split"),
        ("generated", "validation", 1, "packages"),
        ("generated", "test", 10_000, "Ask for fewer"),
    ):
        with pytest.raises(BadInput, match=words):
            swe.tasks(spec, split, count)
    with pytest.raises(BadInput, match="toolz is named twice"):
        SweGym(str(tmp_path), packages={"train": ["toolz==1.2.0"], "test": ["Toolz==1.1.0"]})
    for packages, words in (("toolz", "toolz==1.0.0"), ("./nowhere", "nowhere")):
        with pytest.raises(BadInput, match=words):
            SweGym(str(tmp_path), SubprocessSandbox(), {"test": [packages]}).tasks("generated", "test", 1)
    with pytest.raises(BadInput, match="DockerSandbox does not work here"):
        world(home, little, DockerSandbox(url="unix:///nowhere")).reset(tasks[0])
    with pytest.raises(BadInput, match="at_once"):
        Allowance(at_once=0)
    broken = tmp_path / "broken.json"
    broken.write_text(Path(tasks[0].path).read_text()[:100])
    with pytest.raises(BadInput, match="no problem of this package"):
        swe.reset(Task("generated", "x", "test", str(broken)))
    (tmp_path / "untested").mkdir()
    (tmp_path / "untested" / "a.py").write_text("x = 1\n")
    with pytest.raises(BadInput, match="none of its tests passes"):
        SweGym(str(home), SubprocessSandbox(), {"test": [f"{tmp_path}/untested"]}).tasks("generated", "test", 1)
    for tree in (home / "trees").glob("*.tar"):
        moved = tree.rename(tree.with_suffix(".gone"))
        with pytest.raises(BadInput, match="missing"):
            swe.reset(tasks[0])
        moved.rename(tree)
        break


def test_sessions_of_a_pool_work_side_by_side_and_leave_nothing(home: Path, little: str, tasks: list[Task]):
    before = traces()
    with EnvPool(world(home, little), 4) as pool:
        live = dict(enumerate(tasks[:4]))
        assert not any(isinstance(start, Failure) for start in pool.reset(live).values())
        folders = [trace for trace in traces() - before if trace.startswith("/tmp/")]
        assert len(folders) == 4
        ends = pool.step(dict.fromkeys(live, "submit"))
        assert all(not isinstance(end, Failure) and end.lost for end in ends.values())
    assert not left(before)


def test_an_agent_cannot_make_its_loss_vanish(
    home: Path, little: str, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
):
    swe = world(home, little)
    limits = {NESTED: ("COPY_TIMEOUT", 2.0), "head -c 2M /dev/zero > big": ("ARCHIVE_CAP", 1 << 20)}
    try:
        for attack, limit in limits.items():
            swe.reset(tasks[0])
            swe.step(attack)
            with monkeypatch.context() as patched:
                patched.setattr(base, *limit)
                last = swe.step("submit")
            assert last.lost and not last.won and last.signals["passed"] == 0.0 and not last.signals["resolved"]
    finally:
        swe.close()
