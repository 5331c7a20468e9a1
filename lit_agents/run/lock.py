"""One process at a time writes to a run folder: a lock that the operating system drops when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from lit_agents.errors import BadInput
from lit_agents.system.processes import identity

LOCK = "run.lock"
"""File in the run folder; it stays there, since deleting it would let two processes lock two files of one name."""


def locked(folder: Path) -> IO[str] | None:
    """Lock a folder until the file is closed or this process ends. Programs that it starts do not inherit the lock.

    Returns:
        The open file, which names this process; None if another process holds the lock.

    Raises:
        OSError: the file cannot be written, or the file system has no locks.
    """
    file = (folder / LOCK).open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(identity(os.getpid()))
        file.flush()
    except BlockingIOError:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file


def in_use(folder: Path) -> BadInput:
    """The refusal of a folder that another process has locked; says which one, as far as that is known."""
    words = (folder / LOCK).read_text(encoding="utf-8").split()
    who = f"process {words[3]} on {words[0]}" if len(words) == 5 else "another process"
    return BadInput(f"--run {folder}", f"{who} is at work in it.", "Let it end, or choose another --run.")
