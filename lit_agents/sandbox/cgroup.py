"""Limits on all processes of a sandbox together, by control groups of version 1 or 2; only root can make them."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from lit_agents.sandbox.cleanup import remove
from lit_agents.sandbox.types import Allowance

ROOT = Path("/sys/fs/cgroup")
PERIOD = 100_000  # microseconds over which processor time is counted
PREFIX = "lit_agents-"
_numbers = count()


@dataclass(frozen=True)
class Cgroup:
    """One group: a folder for each controller in version 1, one for all in version 2.

    Attributes:
        folders: where a process is put in by writing to ``cgroup.procs``.
    """

    folders: tuple[Path, ...]

    @staticmethod
    def made(allowance: Allowance) -> Cgroup:
        """A new one, with limits.

        Raises:
            OSError: not root, no such controllers, or they are not to be written here.
        """
        name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        quota = max(1000, int(allowance.cpus * PERIOD))
        if (ROOT / "cgroup.controllers").exists():
            group = Cgroup((_own("") / name,))
            limits = {
                "memory.max": allowance.memory,
                "memory.swap.max": 0,
                "pids.max": allowance.processes,
                "cpu.max": f"{quota} {PERIOD}",
            }
        else:
            group = Cgroup(tuple(_own(controller) / name for controller in ("memory", "pids", "cpu")))
            limits = {
                "memory.limit_in_bytes": allowance.memory,
                "memory.memsw.limit_in_bytes": allowance.memory,
                "pids.max": allowance.processes,
                "cpu.cfs_period_us": PERIOD,
                "cpu.cfs_quota_us": quota,
            }
        try:
            for folder in group.folders:
                folder.mkdir()
            for file, value in limits.items():
                group._write(file, str(value))
        except OSError:
            for folder in group.folders:
                remove("cgroup", str(folder))
            raise
        return group

    @property
    def kills(self) -> int:
        """How many processes in it were killed so far for lack of memory."""
        for file in ("memory.events", "memory.oom_control"):
            with suppress(OSError):
                fields = dict(line.split() for line in (self.folders[0] / file).read_text().splitlines())
                return int(fields.get("oom_kill", 0))
        return 0

    def _write(self, file: str, value: str) -> None:
        places = [folder / file for folder in self.folders if (folder / file).exists()]
        if not places and "sw" not in file:  # a system without swap does not count it
            raise FileNotFoundError(file)
        for place in places:
            place.write_text(value)


def _own(controller: str) -> Path:
    """The group this process is in: a new one within it is bound by its limits too."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(",") if controller else not names:
            return ROOT / controller / path.lstrip("/")
    raise FileNotFoundError(f"no control group for {controller or 'anything'}")
