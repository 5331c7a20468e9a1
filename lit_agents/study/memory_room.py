"""How many runs fit beside each other on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

from lit_agents.system.processes import resident_bytes

AGAIN = 5.0
"""Seconds until memory is looked at again."""
SPARE = 1.25
"""How much more than the largest run so far must be free for one more."""
GROWING = 120.0
"""Seconds in which a run comes to its size; until then what it will need counts as taken."""


class Room:
    """Each run beside another one needs as much free memory as the largest so far has held; the first one runs alone.

    Args:
        jobs: how many at most.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs, self._begun, self._changed = jobs, list[float](), Condition()
        self._seen = self._largest = 0

    @property
    def shared(self) -> bool:
        """Whether runs may be beside each other."""
        return self._jobs > 1

    @property
    def threads(self) -> dict[str, str]:
        """Environment variables that share the cores out."""
        if not self.shared:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self._jobs))}

    def note(self, pid: int) -> None:
        """Look at what a run holds, with all its processes."""
        held = resident_bytes(pid)
        with self._changed:
            self._seen = max(self._seen, held)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for room, and hold it."""
        with self._changed:
            while self._begun and not self._fits():
                self._changed.wait(AGAIN)
            now = time.monotonic()
            self._begun.append(now)
        try:
            yield
        finally:
            with self._changed:
                self._begun.remove(now)
                self._largest = self._seen  # not before a run has ended: nobody knows what it will come to
                self._changed.notify_all()

    def _fits(self) -> bool:
        now = time.monotonic()
        if len(self._begun) >= self._jobs or not self._largest:
            return False
        growing = sum(now - begun < GROWING for begun in self._begun)
        return available_memory() > (SPARE + growing) * self._largest


def available_memory() -> int:
    """Bytes that could be used without swapping; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable")), 0)
