"""A policy's weights on their way to another process: one matrix after another, none held twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection

import torch
from torch import Tensor


def send_weights(connection: Connection, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Name, type, shape and bytes of each, then None."""
    for name, value in weights:
        connection.send((name, value.dtype, value.shape))
        connection.send_bytes(value.view(-1).view(torch.uint8).numpy().data)
    connection.send(None)


def received_weights(connection: Connection) -> Iterator[tuple[str, Tensor]]:
    """The other end of `send_weights`."""
    while (header := connection.recv()) is not None:
        name, dtype, shape = header
        data = bytearray(connection.recv_bytes())
        yield name, torch.frombuffer(data, dtype=dtype).view(shape)
