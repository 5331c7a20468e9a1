"""What a one-line fault is; see `tests.mutation.faults`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A line that is changed."""

    name: str
    file: str
    """Below ``lit_agents/``."""
    line: str
    """As it is; must stand in the file once."""
    fault: str
    """What it becomes."""
    tests: tuple[str, ...]
    """Where it should be noticed."""
