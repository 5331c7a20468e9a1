"""Who is who among processes, also after a number was given to another one, who ends with whom, and what they hold."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from lit_agents.errors import BadInput

PR_SET_PDEATHSIG = 1


def makers(workers: int | None) -> int:
    """How many processes make things: as many as somebody asked for, by default one per core.

    Raises:
        BadInput: fewer than one.
    """
    if workers is not None and workers < 1:
        raise BadInput("workers", f"{workers} is below 1.", "Leave it out for one per core.")
    return workers or os.cpu_count() or 1


def machine() -> str:
    """This machine, this boot of it, and whom its process numbers are for: containers have their own; in three words."""
    host = socket.gethostname() or "?"
    boot = numbers = "?"
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        numbers = os.readlink("/proc/self/ns/pid")
    return f"{host} {boot} {numbers}"


def identity(pid: int) -> str:
    """A process, as ``host boot numbers pid start``; empty if there is none, or the system does not say."""
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
    return f"{machine()} {pid} {started}"


def is_gone(owner: str) -> bool:
    """Whether it was a process of this machine that runs no more; of others nothing is known."""
    words = owner.split()
    if len(words) != 5:
        return False
    host, boot, numbers = machine().split()
    if words[0] == host and words[1] != boot:
        return True  # nothing survives a boot
    return words[1:3] == [boot, numbers] and identity(int(words[3])) != owner


def end_with_parent(parent: int) -> None:
    """From now on this process is killed when its parent ends, however that ends (on Linux); at once if it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def resident_bytes(pid: int) -> int:
    """What a process and all that descend from it hold in memory; 0 where the system does not say."""
    children: dict[int, list[int]] = {}
    held: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
            held[int(folder.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        total += held.get(one, 0)
        waiting += children.get(one, [])
    return total
