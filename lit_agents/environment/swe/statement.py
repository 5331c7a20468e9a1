"""What the agent is told about a generated bug, from templates: the more help, the easier."""

from __future__ import annotations

from collections.abc import Sequence

from lit_agents.environment.swe.operators import KINDS

SHOWN_TESTS = 5


def statements(path: str, entity: str, operator: str, failing: Sequence[str]) -> tuple[str, ...]:
    """By level of help: 0 that something fails, 1 the file, 2 the function, 3 the tests, 4 the kind of bug.

    Args:
        path: of the file with the bug.
        entity: the function or class.
        operator: one of `KINDS`.
        failing: ids of the tests that fail.
    """
    more = len(failing) - SHOWN_TESTS
    tests = " ".join(failing[:SHOWN_TESTS]) + (f" and {more} more" if more > 0 else "")
    said = [
        "Some tests fail after a recent change. Find and fix the cause.",
        f"The problem is in {path}.",
        f"Look at {entity}.",
        f"These tests fail: {tests}",
        KINDS[operator],
    ]
    return tuple("\n".join(said[: level + 1]) for level in range(len(said)))
