"""Who is who among processes, also after a number was given to another one."""

from __future__ import annotations

import socket
from pathlib import Path


def boot() -> str:
    """This boot of this machine; the host's name where the system has no number for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def identity(pid: int) -> str:
    """A process of this boot of this machine, as ``boot pid start``; empty if there is none."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
    return f"{boot()} {pid} {started}"


def is_gone(owner: str) -> bool:
    """Whether it was a process of this machine that runs no more; of other machines nothing is known."""
    where, _, rest = owner.partition(" ")
    return where == boot() and identity(int(rest.split()[0])) != owner
