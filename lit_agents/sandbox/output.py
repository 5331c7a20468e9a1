"""Output of a program, however much it is: the beginning and the end are kept, and what was lost is counted."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

PIECE = 1 << 16
LOOK = 0.2
"""Seconds after which it is seen that a process has ended though its output has not."""
AFTERWARDS = 0.05
"""Seconds for what an ended process has written and was not yet read."""


class Capture:
    """Keeps ``cap`` bytes at most: the first half from the beginning, the rest from the end.

    Args:
        cap: bytes.
    """

    def __init__(self, cap: int) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._first, self._last = cap // 2, cap - cap // 2
        self.lost = 0

    def write(self, data: bytes) -> None:
        """Take what came."""
        room = self._first - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        if len(self._tail) > self._last + PIECE:  # not at every write: moving bytes costs
            self._trim()

    def kept(self) -> bytes:
        """The two parts, one after the other; nothing is between them if ``lost`` is 0."""
        self._trim()
        return bytes(self._head + self._tail)

    def _trim(self) -> None:
        if (surplus := len(self._tail) - self._last) > 0:
            del self._tail[:surplus]
            self.lost += surplus


def finished(
    process: subprocess.Popen[bytes], stdin: bytes, timeout: float, sink: Capture, kill: Callable[[], None]
) -> bool:
    """Feed a process and read it until it has ended; False if it was killed at the deadline.

    Args:
        process: with pipes for standard input and output.
        timeout: seconds.
        kill: ends the process and what it started; also called if it ended by itself.
    """
    deadline = time.monotonic() + timeout
    in_time = False
    try:
        if _converse(process, stdin, deadline, sink):
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
                in_time = True
    finally:
        kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()
    return in_time


def _converse(process: subprocess.Popen[bytes], stdin: bytes, deadline: float, sink: Capture) -> bool:
    """Feed it and read to the end of its output, or what comes after its own end for a moment; False at the deadline."""
    assert process.stdin is not None and process.stdout is not None
    left = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        os.set_blocking(process.stdin.fileno(), False)
        if left:
            selector.register(process.stdin, selectors.EVENT_WRITE)
        else:
            process.stdin.close()
        while True:
            if process.poll() is not None:  # a child that holds its output does not hold us
                deadline = min(deadline, time.monotonic() + AFTERWARDS)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return process.poll() is not None
            for key, _ in selector.select(min(remaining, LOOK)):
                if key.fileobj is process.stdout:
                    data = os.read(process.stdout.fileno(), PIECE)
                    if not data:
                        return True
                    sink.write(data)
                    continue
                left = _fed(process, left)
                if not left:
                    selector.unregister(process.stdin)
                    with suppress(BrokenPipeError):
                        process.stdin.close()


def status(returncode: int) -> int:
    """As a shell says it: 128 + n after signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def _fed(process: subprocess.Popen[bytes], left: memoryview) -> memoryview:
    """What is left after the process has taken as much as it takes now; nothing if it takes no more at all."""
    assert process.stdin is not None
    try:
        return left[os.write(process.stdin.fileno(), left[:PIECE]) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:
        return left[:0]
