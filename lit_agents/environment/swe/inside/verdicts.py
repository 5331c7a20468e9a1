"""Notes what every test did, adds one test that must fail, and looks whether pytest itself is what it was. PYTEST_DONT_REWRITE

All that it knows is in the variables of `begin`, whose functions are hooks of pytest; nothing is in the module. What it calls at
the end is held from before anything of the repository was imported.
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

ORDER = ("skipped", "passed", "failed")
MACHINERY = ("pytest", "_pytest", "pluggy", "unittest")
EVERY = 0.25
"""Seconds between two looks at the machinery."""
MOST_NAMED = 20


def begin(word: str) -> dict[str, Callable[..., Any]]:
    """The plugin's hooks.

    Args:
        word: what its line begins with, on the output that there is now.
    """
    out, process = os.dup(1), os.getpid()
    write, getpid, quoted, now = os.write, os.getpid, encode_basestring_ascii, monotonic
    verdicts: dict[str, str] = {}
    patched: dict[str, str] = {}
    expected_to_fail: set[str] = set()
    canary = "test_" + os.urandom(6).hex()
    state: dict[str, Any] = {"id": "", "looked": 0.0, "before": {}}

    def note(test: str, verdict: str) -> None:
        verdicts[test] = max(verdicts.get(test, "skipped"), verdict, key=ORDER.index)

    def look() -> None:
        state["looked"] = now()
        patched.update((name, "") for name in _differing(state["before"], dict(_machinery())))

    def pytest_load_initial_conftests() -> None:  # after pytest's own, and before any conftest.py is imported
        state["before"] = dict(_machinery())
        gc.freeze()  # so that no search through all objects comes upon this

    def pytest_collection_modifyitems(items: list[Any]) -> Iterator[None]:
        yield  # whoever orders or deselects has done so
        expected_to_fail.update(item.nodeid for item in items if item.get_closest_marker("xfail"))
        added = _failing(items, canary)
        if added is not None:
            state["id"] = added.nodeid
            items.append(added)

    def pytest_collection_finish() -> None:
        look()

    def pytest_runtest_logreport(report: Any) -> None:
        if report.outcome == "failed":
            note(report.nodeid, "failed")
        elif report.when == "call" or report.outcome == "skipped":
            expected = report.outcome == "skipped" and hasattr(report, "wasxfail") and report.nodeid in expected_to_fail
            note(report.nodeid, "passed" if expected or report.outcome == "passed" else "skipped")
        if report.when == "teardown" and now() - state["looked"] > EVERY:
            look()

    def pytest_unconfigure() -> None:
        if getpid() != process:  # a copy of this process that a test has made, and not ended
            return
        look()
        failing = verdicts.pop(state["id"], "")
        pairs = ", ".join([quoted(test) + ": " + quoted(verdict) for test, verdict in verdicts.items()])
        names = ", ".join([quoted(name) for name in list(patched)[:MOST_NAMED]])
        line = f'\n{word} {{"verdicts": {{{pairs}}}, "canary": {quoted(failing)}, "patched": [{names}]}}\n'
        data = line.encode("ascii")
        while data:
            data = data[write(out, data) :]

    pytest_collection_modifyitems.pytest_impl = {"hookwrapper": True}  # type: ignore[attr-defined]
    hooks: list[Any] = [pytest_load_initial_conftests, pytest_collection_modifyitems, pytest_collection_finish]
    hooks += [pytest_runtest_logreport, pytest_unconfigure]
    return {hook.__name__: hook for hook in hooks}


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
    """Names of what was replaced or taken away."""
    for name, content in before.items():
        found = after.get(name, (None,) * len(content))
        if any(old is not new for old, new in zip(content, found)):  # noqa: B905  Python 3.7 has no strict
            yield name
