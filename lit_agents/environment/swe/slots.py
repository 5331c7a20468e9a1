"""How many commands run at once on this machine, over all processes: a time limit means nothing if a hundred share a core."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK = 0.01
"""Seconds between two looks for a free one."""


class Slots:
    """A lock of which there are several; a process that dies gives its own back.

    Args:
        count: how many; by default one per core.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = count or os.cpu_count() or 1

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for one, and keep it for the block."""
        folder = Path(tempfile.gettempdir()) / f"lit_agents_slots.{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            for number in range(self._count):
                with (folder / str(number)).open("w") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    yield
                    return
            time.sleep(LOOK)
