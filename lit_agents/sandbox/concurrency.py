"""How many commands run at once on this machine, over all processes: a time limit means nothing if a hundred share a core."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LOOK = 0.01
"""Seconds between two looks for a free one."""


@contextmanager
def slot(count: int | None = None) -> Iterator[None]:
    """Wait for one of several locks, and keep it for the block; a process that dies gives its own back.

    Who comes first is served first: one looks for a free lock, and the system keeps the others in line.

    Args:
        count: how many there are; by default one per core.
    """
    folder = Path(tempfile.gettempdir()) / f"lit_agents_slots.{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as held:
        with (folder / "line").open("w") as line:
            fcntl.flock(line, fcntl.LOCK_EX)
            while not any(_taken(folder / str(number), held) for number in range(count or os.cpu_count() or 1)):
                time.sleep(LOOK)
        yield


def _taken(path: Path, held: ExitStack) -> bool:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    held.enter_context(file)
    return True
