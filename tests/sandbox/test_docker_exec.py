"""The engine's stream protocol, against an engine that sends as it likes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from lit_agents.sandbox.docker_exec import ExecStream
from lit_agents.sandbox.output import Capture
from lit_agents.sandbox.types import SandboxError

HEAD = b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n"


def piece(data: bytes, stream: int = 1) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


@pytest.fixture
def engine(tmp_path: Path):
    """Starts one that answers with these packets, each sent when the one before has surely arrived by itself."""
    threads: list[Thread] = []

    def start(*packets: bytes) -> str:
        path = tmp_path / "engine.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)

        def answer() -> None:
            with listener, listener.accept()[0] as connection:
                connection.recv(1 << 16)
                for packet in packets:
                    connection.sendall(packet)

        threads.append(Thread(target=answer))
        threads[0].start()
        return f"unix://{path}"

    yield start
    for thread in threads:
        thread.join(10)


def said(url: str) -> bytes:
    sink = Capture(1000)
    assert ExecStream(url, "x").converse(b"", 10, sink, lambda: None)
    return sink.kept()


def test_what_comes_with_the_headers_is_not_lost(engine: Callable[..., str]):
    assert said(engine(HEAD + piece(b"first ") + piece(b"second", 2)[:9], piece(b"second", 2)[9:])) == b"first second"


def test_headers_and_pieces_may_come_byte_by_byte(engine: Callable[..., str]):
    everything = HEAD + piece(b"out") + piece(b"err", 2)
    assert said(engine(*(everything[i : i + 1] for i in range(len(everything))))) == b"outerr"


def test_an_engine_that_refuses_or_hangs_up_breaks_the_sandbox(engine: Callable[..., str], tmp_path: Path):
    with pytest.raises(SandboxError, match=r"409 Conflict .*is not running"):
        ExecStream(engine(b"HTTP/1.1 409 Conflict\r\n\r\nit is not running"), "x")
    with pytest.raises(SandboxError, match="does not answer"):
        ExecStream(f"unix://{tmp_path}/nobody.sock", "x")
