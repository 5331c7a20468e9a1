"""What a sandbox has made outside of its own process, and who removes it if that process is killed.

A `Janitor` starts this file as a small process of its own, which is told of every folder, control group, process group and
container. When its input ends, because its owner closed it or is gone, it removes what is left, and goes. It imports nothing
but the standard library, is no member of its owner's process group, and ignores interrupts.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from urllib.parse import urlsplit

PATIENCE = 20.0
"""Seconds for which an engine that does not answer is asked again to remove a container."""


class Janitor:
    """Told of what there is to remove; see above."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def has(self, kind: str, name: str) -> None:
        """There is one more thing of a kind: ``folder``, ``cgroup``, ``group`` (of processes) or ``container`` (URL and id)."""
        self._tell("+", kind, name)

    def lost(self, kind: str, name: str) -> None:
        """It was removed."""
        self._tell("-", kind, name)

    def close(self) -> None:
        """Let it remove what is left, and wait for it."""
        if self._process.stdin and not self._process.stdin.closed:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE + 5)

    def _tell(self, sign: str, kind: str, name: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([sign, kind, name]).encode() + b"\n")
        self._process.stdin.flush()


def remove(kind: str, name: str) -> None:
    """Whatever it is, and whether or not it is still there."""
    if kind == "group":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(int(name), signal.SIGKILL)
    elif kind == "cgroup":
        _remove_cgroup(name)
    elif kind == "folder":
        _remove_folder(name)
    elif kind == "container":
        url, _, container = name.rpartition(" ")
        remove_container(url, container)


def remove_container(url: str, container: str) -> None:
    """Ask the engine at a URL, again and again for a while if it does not answer."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(OSError, http.client.HTTPException):
            connection = _connection(url)
            connection.request("DELETE", f"/containers/{container}?force=1&v=1")
            if connection.getresponse().status in (204, 404):
                return
        time.sleep(0.2)


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return http.client.HTTPConnection(parts.hostname or "localhost", parts.port or 2375, timeout=PATIENCE)
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(PATIENCE)
    connection.sock.connect(parts.path)
    return connection


def _remove_cgroup(name: str) -> None:
    """With what is in it; right after their end the kernel may still be busy with its processes."""
    until = time.monotonic() + 5.0
    while os.path.isdir(name) and time.monotonic() < until:
        with suppress(OSError), open(os.path.join(name, "cgroup.procs")) as inside:
            for pid in inside:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        with suppress(OSError):
            os.rmdir(name)
        time.sleep(0.005)


def _remove_folder(name: str) -> None:
    """Also one whose folders an agent has locked, and one into which a dying process still writes."""
    until = time.monotonic() + 5.0
    while os.path.isdir(name) and time.monotonic() < until:
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):  # which go as deep as folders do
            subprocess.run([*command, "--", name], stderr=subprocess.DEVNULL, check=False)


def main() -> None:
    """Listen to the end of the input, then remove."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    there: dict[tuple[str, str], None] = {}
    for line in sys.stdin:
        sign, kind, name = json.loads(line)
        if sign == "+":
            there[kind, name] = None
        else:
            there.pop((kind, name), None)
    for kind, name in reversed(there):  # a folder is made first and removed last
        with suppress(Exception):
            remove(kind, name)


if __name__ == "__main__":
    main()
