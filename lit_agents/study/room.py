"""How many runs fit beside each other on this machine."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

AGAIN = 5.0
"""Seconds until memory is looked at again."""
SPARE = 1.25
"""How much more than the largest run so far must be free for one more."""


class Room:
    """Each run beside another one needs as much free memory as the largest so far has held; the first one runs alone.

    Args:
        jobs: how many at most.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs, self._running, self._changed = jobs, 0, Condition()

    @property
    def threads(self) -> dict[str, str]:
        """Environment variables that share the cores out."""
        if self._jobs == 1:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self._jobs))}

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for room, and hold it."""
        with self._changed:
            while self._running and not self._fits():
                self._changed.wait(AGAIN)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _fits(self) -> bool:
        if self._running >= self._jobs:
            return False
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
        return bool(largest) and available_memory() > SPARE * largest


def available_memory() -> int:
    """Bytes that could be used without swapping; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), 0)
