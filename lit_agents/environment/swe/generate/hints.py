"""What the agent is told about a generated bug, from templates: the more help, the easier."""

from __future__ import annotations

from collections.abc import Sequence

from lit_agents.environment.swe.generate.operators import KINDS

SHOWN_TESTS = 5
SOMETHING = "Some tests fail after a recent change. Find and fix the cause."


def without_text(failing: Sequence[str]) -> tuple[str, ...]:
    """For a bug of which nobody has written anything, by level of help: that something fails; from 3 on, the tests."""
    return (SOMETHING,) * 3 + (f"{SOMETHING}\n{_tests(failing)}",)


def statements(path: str, entity: str, operator: str, failing: Sequence[str]) -> tuple[str, ...]:
    """By level of help: 0 that something fails, 1 the file, 2 the function, 3 the tests, 4 the kind of bug.

    Args:
        path: of the file with the bug.
        entity: the function or class.
        operator: one of `KINDS`.
        failing: ids of the tests that fail.
    """
    said = [
        SOMETHING,
        f"The problem is in {path}.",
        f"Look at {entity}.",
        _tests(failing),
        KINDS[operator],
    ]
    return tuple("\n".join(said[: level + 1]) for level in range(len(said)))


def _tests(failing: Sequence[str]) -> str:
    more = len(failing) - SHOWN_TESTS
    return f"These tests fail: {' '.join(failing[:SHOWN_TESTS])}" + (f" and {more} more" if more > 0 else "")
