"""A repository small enough to know by heart, and tests of it."""

from __future__ import annotations

from pathlib import Path

from lit_agents.environment.swe import SweGym
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.local import SubprocessSandbox

COUNT = 6
"""Tasks of it."""

SOURCE = '''"""Little things."""


def clamp(value, low=0, high=10):
    """Between two bounds."""
    if value < low:
        return low
    return high if value > high else value


def total(values):
    result = 0
    for value in values:
        result += value
    return result


def first(values, n):
    if n < 0 or not isinstance(n, int):
        raise ValueError(n)
    return list(values)[:n]
'''
TESTS = """import pytest
from little.core import clamp, first, total


@pytest.mark.parametrize(("value", "expected"), [(-1, 0), (0, 0), (5, 5), (10, 10), (11, 10)], ids=["a b", "a c", "d", "e", "f"])
def test_clamp(value, expected):
    assert clamp(value) == expected


def test_total():
    assert total([1, 2, 3]) == 6
    assert total([]) == 0


def test_first():
    assert first([1, 2, 3], 2) == [1, 2]
    with pytest.raises(ValueError):
        first([], -1)


@pytest.mark.skip
def test_later():
    raise AssertionError
"""


def little_package(folder: Path) -> Path:
    """Its folder."""
    for name, text in {"little/__init__.py": "", "little/core.py": SOURCE, "tests/test_core.py": TESTS}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def world(home: Path, little: str, sandbox: Sandbox | None = None, **settings) -> SweGym:
    """With the little package to be tested on, and another one for training."""
    packages = {"train": [f"{home}/other"], "test": [little]}
    return SweGym(str(home), sandbox or SubprocessSandbox(), packages, workers=2, **settings)
