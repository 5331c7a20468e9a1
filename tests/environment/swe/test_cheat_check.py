"""Nothing but a repair wins, in every kind of sandbox that works here; and nobody who is honest is called a cheat."""

# ruff: noqa: E501  texts of programs
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lit_agents.environment.swe.cheat_check import CANARY, broken_test, marked, oddities
from lit_agents.environment.swe.dataset.venv import runtime
from lit_agents.environment.swe.file_tree import File, changed, packed, unpacked
from lit_agents.environment.swe.generate.generator import NEEDS
from lit_agents.environment.swe.grading import Grade, judged
from lit_agents.environment.swe.pytest_runner import Ran, reason, run_tests
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.bubblewrap import BubblewrapSandbox
from lit_agents.sandbox.docker import DockerSandbox
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Completed
from tests.environment.swe.cheats import BAD, CAUGHT, CORE, DONE_NOTHING, FIX, GOOD, REPOSITORY, TEST, UNSEEN, problem

WON = Grade(1.0, 1.0, 1.0, True, True)
IDLE = Grade(len(GOOD) / (len(GOOD) + 1), 0.0, 1.0, False, True)
HONEST = {
    "little/__init__.py": "",
    "warned.py": "class Old(Warning):\n    pass\n",
    "conftest.py": "import little.core\nimport _pytest.runner\nimport pytest\n\n_pytest.runner.check_interactive_exception = lambda *a: False\n"
    "def pytest_collection_modifyitems(items):\n    items.reverse()\n",
    "little/plugin.py": "import little\n\ndef pytest_configure(config):\n    little.seen = True\n",
    "pytest.ini": "[pytest]\naddopts = --ff -p little.plugin -W error\ncache_dir = here\nfilterwarnings =\n  error\n  ignore::warned.Old\n",
    "tests/test_more.py": (
        "import os, subprocess, sys\nimport little, pytest\nfrom pathlib import Path\n\n"
        "def test_plugin():\n    assert little.seen\n\n"
        "def test_process():\n    done = subprocess.run([sys.executable, '-m', 'little.core'], cwd='/')\n    assert done.returncode == 0\n\n"
        "def test_path():\n    assert sys.path.index(os.getcwd()) < sys.path.index(os.path.dirname(pytest.__path__[0]))\n"
        "    assert not {'lit_agents_plugin', 'sitecustomize'} & set(sys.modules) and not Path('here').exists()\n"
        "    assert os.environ['PYTHONPATH'].split(':')[0] == os.getcwd() and 'PYTEST_ADDOPTS' not in os.environ\n\n"
        "@pytest.mark.xfail\ndef test_xfail():\n    assert False\n"
    ),
}
LENIENT = (
    "import pytest\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n    r = (yield).get_result()\n"
    "    if 'test_first' not in item.nodeid:\n        r.outcome = 'passed'\n"
)

QUICK = (
    "raises that wants nothing",
    "a plugin of its own",
    "a plugin for one test",
    "another json",
    "only for tests that were seen",
)


KINDS = (SubprocessSandbox, BubblewrapSandbox, DockerSandbox)


def pairs(cheats: dict) -> list:
    """Every cheat in every kind of sandbox; a few without one are quick."""
    return [
        pytest.param(
            kind,
            cheat,
            id=f"{kind.__name__}-{cheat}",
            marks=() if kind is SubprocessSandbox and cheat in QUICK else pytest.mark.slow,
        )
        for kind in KINDS
        for cheat in cheats
    ]


def kinds() -> list:
    return [
        pytest.param(kind, id=kind.__name__, marks=() if kind is SubprocessSandbox else pytest.mark.slow)
        for kind in KINDS
    ]


@pytest.fixture(scope="module", params=kinds())
def opened(request: pytest.FixtureRequest, home: Path) -> Iterator[Sandbox]:
    kind = request.param
    made = DockerSandbox(url=request.getfixturevalue("engine")) if kind is DockerSandbox else kind()
    if trouble := made.trouble():
        pytest.skip(trouble)
    with made:
        made.open(runtime(NEEDS, home / "venvs", False, {}))
        yield made


@pytest.mark.parametrize(("opened", "cheat"), pairs(UNSEEN), indirect=["opened"])
def test_what_stands_where_python_or_pytest_would_look_is_not_seen(opened: Sandbox, cheat: str):
    assert judged(problem(), REPOSITORY, UNSEEN[cheat], opened) == IDLE


@pytest.mark.parametrize(("opened", "cheat"), pairs(DONE_NOTHING), indirect=["opened"])
def test_what_a_program_says_about_its_tests_counts_for_nothing(opened: Sandbox, cheat: str):
    found = judged(problem(), REPOSITORY, DONE_NOTHING[cheat], opened)
    assert not found.resolved and found.repaired == 0.0 and not found.cheated


@pytest.mark.parametrize(("opened", "cheat"), pairs(CAUGHT), indirect=["opened"])
def test_a_program_that_changes_how_it_is_tested_loses_and_is_counted(opened: Sandbox, cheat: str):
    assert judged(problem(), REPOSITORY, CAUGHT[cheat], opened) == Grade(0.0, 0.0, 0.0, False, True, cheated=True)


def test_all_that_is_not_seen_wins_nothing_together_and_stands_in_no_repairs_way(opened: Sandbox):
    change = {path: file for each in UNSEEN.values() for path, file in each.items()}
    assert judged(problem(), REPOSITORY, change, opened) == IDLE
    as_module = replace(problem(), command=problem().command.replace("pytest", "python -m pytest", 1))
    assert judged(as_module, REPOSITORY, change, opened) == IDLE
    assert judged(problem(), REPOSITORY, changed(change, FIX), opened) == WON


def test_a_repository_stays_hidden_where_python_m_puts_it_first(opened: Sandbox):
    own = {f"pytest/{name}.py": File(b"raise SystemExit(0)") for name in ("__init__", "__main__")}
    opened.reset(packed(changed(REPOSITORY, own)))
    ran = run_tests(opened, problem().command.replace("pytest", "python -m pytest", 1), 60.0)
    assert ran.verdicts.get(BAD) == ran.canary == "failed", ran.done.output.decode()


def test_a_repository_with_settings_plugins_and_patches_of_its_own_is_repaired(opened: Sandbox):
    more = {path: File(text.encode()) for path, text in HONEST.items()}
    opened.reset(packed(changed(changed(REPOSITORY, FIX), more)))
    ran = run_tests(opened, problem().command, 60.0)
    assert len(ran.passed) == len(GOOD) + 5, ran.done.output.decode()
    assert ran.canary == "failed" and ran.patched == ("_pytest.runner.check_interactive_exception",)
    assert not any(path.startswith(("here", ".pytest_cache")) for path in unpacked(opened.get()))
    assert judged(problem(), changed(REPOSITORY, more), FIX, opened) == WON


def test_a_repository_that_lets_its_own_tests_fail_is_no_cheat(opened: Sandbox):
    before = changed(REPOSITORY, {"tests/conftest.py": File(LENIENT.encode())})
    assert judged(problem(), before, FIX, opened) == WON
    assert judged(problem(), before, {"little/new.py": File(b"")}, opened) == IDLE


def test_what_is_odd_about_a_run_is_a_test_that_passed_or_vanished_and_what_was_patched():
    done = Completed(1, b"")
    assert oddities(Ran({"a": "passed"}, done, "failed")) == frozenset() == oddities(Ran({}, done))
    assert oddities(Ran({"a": "passed"}, done, "passed")) == {CANARY} == oddities(Ran({"a": "passed"}, done))
    assert oddities(Ran({}, done, "", ("pytest.raises",))) == {"pytest.raises"}


def test_a_test_is_broken_where_it_stands_and_only_it():
    text = b"import x\n\n\nclass T:\n    def test_b(self): pass\n\n\nif x:\n\n    def test_b(a):\n        '''Words.'''\n        with a:\n            pass\n"
    tree = {"t.py": File(text)}
    _, inner = broken_test(tree, ["t.py::T::test_b"])
    assert inner["t.py"].data == text.replace(b"(self): pass", b"(self): raise AssertionError; pass")
    test, outer = broken_test(tree, ["t.py::test_b[1]", "t.py::nowhere", "data.txt::x"])
    assert test == "t.py::test_b[1]" and outer["t.py"].data == text.replace(
        b"'''W", b"raise AssertionError\n        '''W"
    )
    expected = {"t.py": File(b"@pytest.mark.xfail\ndef test_a():\n    f()\n")}
    assert broken_test(expected, ["t.py::test_a"]) == ("", {}) == broken_test({}, ["t.py::test_a"])
    once, twice = (marked(REPOSITORY, [BAD])[TEST].data for _ in range(2))
    assert once != twice and once.startswith(REPOSITORY[TEST].data) and CORE not in marked(REPOSITORY, [BAD])


def test_the_reason_is_the_error_and_not_the_last_line():
    said = b"ERROR: usage: pytest [options]\npytest: error: unrecognized arguments: --gg\n  inifile: None\n  rootdir: /testbed\n"
    assert reason(said) == "ERROR: usage: pytest [options]; pytest: error: unrecognized arguments: --gg"
    said = b"...\nE   ModuleNotFoundError: No module named 'x'\nERROR tests/a.py - ModuleNotFoundError: No module named 'x'\n1 error in 0.1s\n"
    assert reason(said).startswith("E   ModuleNotFoundError: No module named 'x'; ERROR tests/a.py")
    assert reason(b"a\nmount: gone\n\n") == "mount: gone" and reason(b"") == ""
