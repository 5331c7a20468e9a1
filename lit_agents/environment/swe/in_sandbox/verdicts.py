"""Notes what every test did, adds one test that must fail, and looks whether pytest itself is what it was.

PYTEST_DONT_REWRITE: it is imported before pytest begins.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from json.encoder import encode_basestring_ascii
from time import monotonic
from types import ModuleType
from typing import Any

MACHINERY = ("pytest", "_pytest", "pluggy", "unittest")
EVERY = 0.25
"""Seconds between two looks at the machinery."""
MOST_NAMED = 20


class Verdicts:
    """The plugin's hooks and what they know; what they call is held from before anything of the repository was imported.

    Args:
        word: what its line begins with, on the output that there is now.
    """

    def __init__(self, word: str) -> None:
        self._word, self._out, self._process, self._name = word, os.dup(1), os.getpid(), "test_" + os.urandom(6).hex()
        self._write, self._getpid, self._quoted, self._now = os.write, os.getpid, encode_basestring_ascii, monotonic
        self._verdicts: dict[str, str] = {}
        self._rank = {"skipped": 0, "passed": 1, "failed": 2}
        self._patched: dict[str, str] = {}
        self._expected_to_fail: set[str] = set()
        self._before: dict[str, tuple[Any, ...]] = {}
        self._canary, self._looked = "", 0.0

    def pytest_load_initial_conftests(self) -> Iterator[None]:
        """When plugins were loaded, and before anything of the repository can be found."""
        self._before = dict(_machinery())
        gc.freeze()  # so that no search through all objects comes upon this
        yield

    pytest_load_initial_conftests.pytest_impl = {"hookwrapper": True, "tryfirst": True}  # type: ignore[attr-defined]  # noqa: RUF012

    def pytest_collection_modifyitems(self, items: list[Any]) -> Iterator[None]:
        """When everybody else has ordered and deselected."""
        yield
        self._expected_to_fail.update(item.nodeid for item in items if item.get_closest_marker("xfail"))
        added = _failing(items, self._name)
        if added is not None:
            self._canary = added.nodeid
            items.append(added)

    pytest_collection_modifyitems.pytest_impl = {"hookwrapper": True}  # type: ignore[attr-defined]  # noqa: RUF012

    def pytest_collection_finish(self) -> None:
        """Every module of tests has been imported."""
        self._look()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One part of one test."""
        if report.outcome == "failed":
            self._note(report.nodeid, "failed")
        elif report.when == "call" or report.outcome == "skipped":
            expected = report.outcome == "skipped" and hasattr(report, "wasxfail")
            expected = expected and report.nodeid in self._expected_to_fail
            self._note(report.nodeid, "passed" if expected or report.outcome == "passed" else "skipped")
        if report.when == "teardown" and self._now() - self._looked > EVERY:
            self._look()

    def pytest_report_teststatus(self, report: Any) -> Any:
        """The test that must fail is in no summary of pytest's."""
        return ("", "", "") if report.nodeid == self._canary else None

    pytest_report_teststatus.pytest_impl = {"tryfirst": True}  # type: ignore[attr-defined]  # noqa: RUF012

    def pytest_unconfigure(self) -> None:
        """Write the line, unless this is a copy of the process that a test has made and not ended."""
        if self._getpid() != self._process:
            return
        self._look()
        quoted, canary = self._quoted, self._verdicts.pop(self._canary, "")
        verdicts = ", ".join([quoted(test) + ": " + quoted(verdict) for test, verdict in self._verdicts.items()])
        names = ", ".join([quoted(name) for name in list(self._patched)[:MOST_NAMED]])
        said = f'{{"verdicts": {{{verdicts}}}, "canary": {quoted(canary)}, "patched": [{names}]}}'
        data = f"\n{self._word} {said}\n".encode("ascii")
        while data:
            data = data[self._write(self._out, data) :]

    def _note(self, test: str, verdict: str) -> None:
        if self._rank[verdict] >= self._rank[self._verdicts.get(test, "skipped")]:
            self._verdicts[test] = verdict

    def _look(self) -> None:
        self._looked = self._now()
        self._patched.update((name, "") for name in _differing(self._before, dict(_machinery())))


def begin(word: str) -> dict[str, Callable[..., Any]]:
    """The hooks, by name; see `Verdicts`."""
    made = Verdicts(word)
    return {name: getattr(made, name) for name in vars(Verdicts) if name.startswith("pytest_")}


def _failing(items: list[Any], name: str) -> Any:
    """A test that fails, in the module of the last one that is neither skipped nor expected to fail; None if there is none."""
    import pytest

    def fails() -> None:
        assert os.urandom(6) == b""

    for item in reversed(items):
        module = item.getparent(pytest.Module) if isinstance(item, pytest.Function) else None
        if module is not None and not any(mark.name in ("skip", "skipif", "xfail") for mark in item.iter_markers()):
            return pytest.Function.from_parent(module, name=name, callobj=fails)
    return None


def _machinery() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every function and class of pytest, and what is in the classes: its name, itself, and what it does."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in MACHINERY or not isinstance(module, ModuleType):
            continue
        owners = [(name, vars(module))]
        classes = [each for each in list(vars(module).values()) if isinstance(each, type) and each.__module__ == name]
        owners += [(f"{name}.{each.__name__}", vars(each)) for each in classes]  # type: ignore[misc]
        for owner, attributes in owners:
            for attribute, value in list(attributes.items()):
                if callable(value) or isinstance(value, (classmethod, staticmethod, property)):
                    does = getattr(value, "fget", None) or getattr(value, "__func__", value)
                    content = (value, getattr(does, "__code__", None), getattr(does, "__defaults__", None))
                    yield f"{owner}.{attribute}", content


def _differing(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> Iterator[str]:
    """Names of what was replaced or taken away, but by what pytest itself replaces it with."""
    own = [content[0] for content in before.values() if getattr(content[0], "__module__", "") == "_pytest.legacypath"]
    for name, content in before.items():
        found = after.get(name, (None,) * len(content))
        if all(old is new for old, new in zip(content, found)):  # noqa: B905  Python 3.7 has no strict
            continue
        if found[0] is content[0] or not any(found[0] is each for each in own):
            yield name
