"""One process of a pool as the pool sees it: a connection on which messages go and come in parts, without anybody waiting."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_agents.environment.pool.worker import HEADER


@dataclass
class Session:
    """A process that holds one environment, and the messages that are under way to and from it."""

    pid: int
    connection: socket.socket
    resets: int = 0
    playing: bool = False
    outbox: memoryview = field(default_factory=lambda: memoryview(b""))
    inbox: bytearray = field(default_factory=bytearray)

    def ask(self, question: object) -> None:
        """Put a question where `send` takes it from."""
        payload = pickle.dumps(question)
        self.outbox = memoryview(HEADER.pack(len(payload)) + payload)

    def send(self) -> None:
        """As much as the other end takes now."""
        with contextlib.suppress(BlockingIOError):
            while self.outbox:
                self.outbox = self.outbox[self.connection.send(self.outbox) :]

    def receive(self) -> bool:
        """What is there; whether the message is complete. Raises `ConnectionError` if the other end is closed."""
        part = self.connection.recv(1 << 16)
        if not part:
            raise ConnectionError("it hung up")
        self.inbox += part
        if len(self.inbox) < HEADER.size:
            return False
        return len(self.inbox) >= HEADER.size + int(HEADER.unpack_from(self.inbox)[0])

    def answer(self) -> tuple[str, Any]:
        """The complete message: what went wrong, if anything, and what was answered or said of that."""
        trouble, answer = pickle.loads(memoryview(self.inbox)[HEADER.size :])
        self.inbox = bytearray()
        return trouble, answer

    def resident(self) -> int:
        """Bytes of memory its process holds; 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    def hang_up(self) -> None:
        """Be heard even where a forked copy of this process still holds the connection."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
