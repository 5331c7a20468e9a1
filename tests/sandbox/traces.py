"""What sandboxes leave on a machine."""

from __future__ import annotations

import importlib
import time
from contextlib import closing
from pathlib import Path

MARK = "300.125"
"""Seconds of a ``sleep`` that is looked for among the processes."""


def traces(url: str = "") -> set[str]:
    """Folders, control groups, mounts, marked processes and janitors; with an engine's URL, its containers."""
    found = {str(path) for path in Path("/tmp").glob("lit_agents-*")}
    for pattern in ("lit_agents-*", "*/lit_agents-*"):  # of the second and of the first version
        found |= {str(path) for path in Path("/sys/fs/cgroup").glob(pattern)}
    found |= {line for line in Path("/proc/mounts").read_text().splitlines() if "lit_agents-" in line}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if MARK.encode() in words or any(word.endswith(b"janitor.py") for word in words):
            found.add(f"process {path.parent.name}")
    if url:
        with closing(importlib.import_module("docker").DockerClient(base_url=url, timeout=20)) as client:
            found |= {
                f"container {container.id}" for container in client.containers.list(all=True, ignore_removed=True)
            }
    return found


def left(before: set[str], url: str = "", seconds: float = 15.0) -> set[str]:
    """What is there now and was not before; it has so long to go away."""
    until = time.monotonic() + seconds
    while (found := traces(url) - before) and time.monotonic() < until:
        time.sleep(0.05)
    return found
