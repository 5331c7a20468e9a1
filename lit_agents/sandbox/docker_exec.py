"""Input and output of one program in a container, by the engine's own protocol.

The docker package loses output: bytes that arrive together with the response's headers stay in a buffer that nobody reads
(docker/docker-py#2042). And a stream that is not read to its end wedges the container (moby/moby#53614), so reading goes on
while the program is being killed.
"""

from __future__ import annotations

import json
import selectors
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from threading import Thread
from urllib.parse import urlsplit

from lit_agents.sandbox.output import Capture
from lit_agents.sandbox.types import SandboxError

HEADER = struct.Struct(">BxxxL")
"""Before every piece: which of the streams it is of, and its length."""
PIECE = 1 << 16
GRACE = 15.0
"""Seconds until a stream must end once its program was told to be killed."""


class ExecStream:
    """A connection on which one program that was prepared is started.

    Args:
        url: of the engine, ``unix://`` or ``tcp://``.
        exec_id: of the program.

    Raises:
        SandboxError: the engine does not answer, or not as it should.
    """

    def __init__(self, url: str, exec_id: str) -> None:
        body = json.dumps({"Detach": False, "Tty": False}).encode()
        request = (
            f"POST /exec/{exec_id}/start HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            self._socket = connected(url)
            with ExitStack() as on_error:
                on_error.enter_context(self._socket)
                self._socket.sendall(request.encode() + body)
                self._received = self._first_output()
                on_error.pop_all()
        except OSError as error:
            raise SandboxError(f"the engine at {url} does not answer ({error})") from error

    def _first_output(self) -> bytearray:
        """Read the answer's headers; what came with them."""
        received = bytearray()
        while b"\r\n\r\n" not in received:
            piece = self._socket.recv(PIECE)
            if not piece:
                raise SandboxError("the engine hung up")
            received += piece
        head, _, rest = bytes(received).partition(b"\r\n\r\n")
        if head.split()[1] not in (b"101", b"200"):
            raise SandboxError(
                f"the engine refuses: {head.splitlines()[0].decode()} {rest[:200].decode(errors='replace')}"
            )
        return bytearray(rest)

    def converse(self, stdin: bytes, timeout: float, sink: Capture, kill: Callable[[], None]) -> bool:
        """Feed the program and read it to its end; False if it was killed at the deadline.

        Raises:
            SandboxError: the stream does not end although it was killed, or the engine is gone.
        """
        deadline, killer, left = time.monotonic() + timeout, None, memoryview(stdin)
        with self._socket, selectors.DefaultSelector() as selector:
            self._socket.setblocking(False)
            selector.register(self._socket, selectors.EVENT_READ | (selectors.EVENT_WRITE if left else 0))
            if not left:
                self._end_input()
            self._deliver(sink)
            while True:
                if time.monotonic() >= deadline:
                    if killer:
                        raise SandboxError("a program could not be killed")
                    deadline, killer = time.monotonic() + GRACE, Thread(target=kill, daemon=True)
                    killer.start()
                for _, ready in selector.select(max(0.0, deadline - time.monotonic())):
                    if ready & selectors.EVENT_WRITE:
                        left = self._fed(left)
                        if not left:
                            selector.modify(self._socket, selectors.EVENT_READ)
                            self._end_input()
                    if ready & selectors.EVENT_READ and not self._read(sink):
                        if killer:
                            killer.join(GRACE)
                        return killer is None

    def _read(self, sink: Capture) -> bool:
        """What is there; False at the end."""
        try:
            piece = self._socket.recv(PIECE)
        except BlockingIOError:
            return True
        except ConnectionError:
            # podman hangs up on input that nobody reads; the next question finds an engine that is gone
            return False
        self._received += piece
        self._deliver(sink)
        return bool(piece)

    def _deliver(self, sink: Capture) -> None:
        """Every whole piece."""
        at = 0
        while len(self._received) >= at + HEADER.size:
            _, size = HEADER.unpack_from(self._received, at)
            if len(self._received) < at + HEADER.size + size:
                break
            sink.write(bytes(self._received[at + HEADER.size : at + HEADER.size + size]))
            at += HEADER.size + size
        del self._received[:at]

    def _fed(self, left: memoryview) -> memoryview:
        try:
            return left[self._socket.send(left[:PIECE]) :]
        except BlockingIOError:
            return left
        except ConnectionError:  # the program has ended without reading it all
            return left[:0]

    def _end_input(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)


def connected(url: str) -> socket.socket:
    """A connection to an engine.

    Raises:
        OSError: nobody answers there.
    """
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return socket.create_connection((parts.hostname or "localhost", parts.port or 2375), GRACE)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(GRACE)
    try:
        connection.connect(parts.path)
    except OSError:
        connection.close()
        raise
    return connection
