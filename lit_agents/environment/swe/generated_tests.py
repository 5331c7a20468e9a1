"""More tests than the repository has, as a source of reward: an interface, and one that writes down what the right code does.

They are run on ``submit`` beside the tests that count, and decide nothing: their share is the signal ``written_passed``.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from lit_agents.environment.swe.cheat_check import oddities
from lit_agents.environment.swe.file_tree import Change, File, Tree, changed, packed
from lit_agents.environment.swe.pytest_runner import PYTEST, reported, run_tests, share
from lit_agents.environment.swe.python_ast import parsed
from lit_agents.environment.swe.task import Problem
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.types import SandboxError
from lit_agents.system.files import name_of_file, write_whole

FOLDER = "lit_agents_written_tests"
COMMAND = f"{PYTEST} -o addopts= {FOLDER}"
TIMEOUT = 60.0
RECORDER = """
"PYTEST_DONT_REWRITE"
import ast, json, os, sys
wanted, most, calls, under_way, out = WANTED, MOST, {}, {}, os.dup(1)

def plain(value):
    text = repr(value)
    if len(text) > 400 or ast.literal_eval(text) != value or type(ast.literal_eval(text)) is not type(value):
        raise ValueError
    return text

def given(frame):
    code = frame.f_code
    count, more = code.co_argcount, code.co_kwonlyargcount
    names, values = code.co_varnames, frame.f_locals
    words = [plain(values[name]) for name in names[:count]]
    words += [name + "=" + plain(values[name]) for name in names[count:count + more]]
    rest = names[count + more:]
    if code.co_flags & 4:
        words += [plain(value) for value in values[rest[0]]]
    if code.co_flags & 8:
        words += [name + "=" + plain(value) for name, value in values[rest[1 if code.co_flags & 4 else 0]].items()]
    return ", ".join(words)

def watch(frame, event, result):
    code = frame.f_code
    if event == "call" or event == "return":
        key = next((key for key in wanted if code.co_name == key[1] and code.co_filename.endswith("/" + key[0])), None)
        if key is None or len(calls.get("::".join(key), ())) >= most:
            return
        try:
            if event == "call":
                under_way[id(frame)] = given(frame)
            elif id(frame) in under_way:
                words = under_way.pop(id(frame))
                if result is not None:  # which is also what is said where an exception is raised
                    calls.setdefault("::".join(key), {})[words] = plain(result)
        except Exception:
            under_way.pop(id(frame), None)

def pytest_runtest_call(item):
    sys.setprofile(watch)

def pytest_runtest_teardown(item):
    sys.setprofile(None)

def pytest_unconfigure(config):
    os.write(out, ("\\nWORD " + json.dumps(calls) + "\\n").encode())
"""


class TestWriter(ABC):
    """Writes tests for a problem."""

    @abstractmethod
    def write(self, problem: Problem, before: Tree, sandbox: Sandbox) -> dict[str, str]:
        """Names of test files -> their text; none where it cannot think of any. It may use the sandbox as it likes.

        Args:
            before: the repository as the agent finds it.
        """


class RecordedCalls(TestWriter):
    """Runs the repository's tests on the right code, writes down what the functions to be repaired are called with and return.

    Only functions of modules, and only arguments and results that can be written down: numbers, texts, and lists, tuples, sets
    and dictionaries of them.

    Args:
        most: tests per function.
    """

    def __init__(self, most: int = 20) -> None:
        self.most = most

    def write(self, problem: Problem, before: Tree, sandbox: Sandbox) -> dict[str, str]:
        """One file per function."""
        fixed = changed(before, problem.fix)
        wanted = [(path, name) for path in problem.fix for name in _functions_that_differ(before, fixed, path)]
        if not wanted:
            return {}
        plugin = RECORDER.replace("WANTED", repr(wanted)).replace("MOST", str(self.most))
        sandbox.reset(packed(changed(fixed, problem.tests)))
        calls, done = reported(sandbox, problem.command, max(TIMEOUT, 20 * problem.seconds), plugin)
        if done.timed_out:
            raise SandboxError("the tests of the right code did not end")
        # what draws lots or counts its calls does not return the same again
        passed = _passed(_as_files(calls), sandbox)
        return _as_files(
            {key: {given: found[given] for given, test in zip(found, _names(key, found), strict=True) if test in passed}
             for key, found in calls.items()}
        )  # fmt: skip


class KeptTests(TestWriter):
    """What a writer has written for a problem; once, and then kept in a folder."""

    def __init__(self, writer: TestWriter, folder: Path) -> None:
        self._writer, self._folder = writer, folder

    def write(self, problem: Problem, before: Tree, sandbox: Sandbox) -> dict[str, str]:
        """See `TestWriter`."""
        settings = f"{type(self._writer).__name__} {sorted(vars(self._writer).items())}"
        path = self._folder / f"{name_of_file(problem.id)}.{hashlib.sha256(settings.encode()).hexdigest()[:12]}.json"
        if not path.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(self._writer.write(problem, before, sandbox)))
        return dict(json.loads(path.read_text(encoding="utf-8")))


def written_passed(files: dict[str, str], sandbox: Sandbox) -> float:
    """Which part of the written tests passes on what is in the sandbox, 0 to 1; there is at least one."""
    named = [f"{FOLDER}/{name}::test_{n}" for name, text in files.items() for n in range(text.count("\ndef test_"))]
    return share(_passed(files, sandbox), named)


def judged_by(files: dict[str, str], before: Tree, change: Change, sandbox: Sandbox) -> float:
    """`written_passed` after a change; what keeps the tests from being started has passed none, as in `grading.judged`.

    Raises:
        SandboxError: they cannot be started without it either.
    """
    counted = {path: file for path, file in change.items() if path.partition("/")[0] != FOLDER}
    for _ in range(2):
        try:
            sandbox.reset(packed(changed(before, counted)))
            return written_passed(files, sandbox)
        except SandboxError:
            sandbox.reset(packed(before))
            written_passed(files, sandbox)
    return 0.0


def _passed(files: dict[str, str], sandbox: Sandbox) -> frozenset[str]:
    if not files:
        return frozenset()
    sandbox.put(packed({f"{FOLDER}/{name}": File(text.encode()) for name, text in files.items()}))
    ran = run_tests(sandbox, COMMAND, TIMEOUT)
    return frozenset() if oddities(ran) else ran.passed


def _functions_that_differ(before: Tree, after: Tree, path: str) -> Iterator[str]:
    """Functions of a module that are in both trees, and not the same."""
    old, new = (_functions(tree[path]) if path in tree else {} for tree in (before, after))
    yield from (name for name, text in new.items() if name in old and old[name] != text)


def _functions(file: File) -> dict[str, str]:
    try:
        body = parsed(file.data).body
    except (SyntaxError, ValueError):
        return {}
    return {node.name: ast.dump(node) for node in body if isinstance(node, ast.FunctionDef)}


def _file(key: str) -> str:
    return f"test_{re.sub(r'[^A-Za-z0-9]+', '_', key)}.py"


def _names(key: str, calls: dict[str, str]) -> list[str]:
    return [f"{FOLDER}/{_file(key)}::test_{number}" for number in range(len(calls))]


def _as_files(calls: dict[str, dict[str, str]]) -> dict[str, str]:
    """By ``path::function``, the arguments it was called with -> what it returned."""
    return {_file(key): _as_tests(key, found) for key, found in calls.items() if found}


def _as_tests(key: str, calls: dict[str, str]) -> str:
    path, _, name = key.partition("::")
    module = path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    lines = [f"from {module} import {name}\n"]
    for number, (given, result) in enumerate(calls.items()):
        lines.append(f"\n\ndef test_{number}():\n    assert {name}({given}) == {result}\n")
    return "".join(lines)
