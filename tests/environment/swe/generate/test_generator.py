from __future__ import annotations

import shlex

import pytest

from lit_agents.environment.swe.file_tree import File
from lit_agents.environment.swe.generate import generator as factory
from lit_agents.environment.swe.generate.difficulty import SMALL, difficulty, is_small
from lit_agents.environment.swe.generate.generator import Clean, candidates
from lit_agents.environment.swe.generate.pypi import Package
from lit_agents.environment.swe.pytest_runner import Ran
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Completed

LONG = "def long(a):\n" + "    a = a + 1\n" * SMALL + "    return a\n"
SHORT = "def short(a, b):\n    if a == b:\n        return (a +\n                b)\n    return a - b\n"


def test_small_candidates_are_the_others_without_the_long_in_the_same_order():
    tree = {f"pkg/{name}.py": File(text.encode()) for name, text in (("long", LONG), ("short", SHORT))}
    package = Package("pkg", "1.0")
    every, small = list(candidates(package, tree)), list(candidates(package, tree, small=True))
    assert [c.number for c in every] == list(range(len(every)))
    assert small == [c for c in every if c.path == "pkg/short.py" and "\n" not in SHORT[c.site.start : c.site.end]]
    assert 0 < len(small) < sum(c.path == "pkg/short.py" for c in every)  # one spans two lines


def test_labels_say_the_same():
    tree = {"pkg/short.py": File(SHORT.encode()), "tests/test_a.py": File(b"from pkg.short import short\n")}
    for candidate in candidates(Package("pkg", "1.0"), tree):
        if candidate.path != "pkg/short.py":
            continue
        labels = difficulty(candidate.path, SHORT, candidate.site, ["tests/test_a.py::test_it"], tree)
        assert labels["function_lines"] == "5" and labels["failing"] == "1" and labels["distance"] == "function"
        assert is_small(SHORT, candidate.site) == (labels["patch_lines"] == "1")


TESTS = ("a.py::x", "a.py::y", "a.py::z[1]", "a.py::z[2]", "b.py::v", "c.py::w", "c.py::u")


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        # z draws lots: one of it failed and then passed; c.py is not run again
        ({"a.py::y", "a.py::z[1]", "c.py::w", "c.py::u"}, {"a.py::y", "a.py::z[1]", "a.py::z[2]"},
         (["a.py::x", "b.py::v"], ["a.py::y", "c.py::u", "c.py::w"])),
        ({"a.py::y"}, {"a.py::x", "a.py::y", "a.py::z[1]", "a.py::z[2]", "b.py::v", "c.py::w", "c.py::u"},
         "no test fails every time"),
        (set(TESTS), None, "no test fails"),
        (set(), None, "every test fails"),
    ],
)  # fmt: skip
def test_a_bug_is_what_fails_every_time(monkeypatch, first: set[str], second: set[str] | None, found):
    runs, commands = iter([first, second]), []

    class Nowhere(SubprocessSandbox):
        def reset(self, archive: bytes) -> None:
            assert archive == b"files"

    def run_tests(sandbox, command: str, timeout: float) -> Ran:
        commands.append(shlex.split(command))
        return Ran(dict.fromkeys(next(runs) or (), "passed"), Completed(1, b""))

    monkeypatch.setattr(factory, "run_tests", run_tests)
    assert factory._outcome(Clean("", TESTS, 1.0), b"files", Nowhere()) == found
    if second is not None:
        files = ["a.py", "b.py"] if isinstance(found, tuple) else ["a.py", "b.py", "c.py"]
        assert commands[1] == commands[0] + files
