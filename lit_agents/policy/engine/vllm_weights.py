"""A policy's weights on their way to another process: whole matrices, one after another, none held twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from lit_agents.policy.causal_lm import CausalLMPolicy

BASE = "base_layer."


@torch.no_grad()
def folded(policy: CausalLMPolicy, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Every parameter under its name in the checkpoint, on the CPU; W + scale B A is computed in float32 and rounded once."""
    for name, parameter in policy.hf.named_parameters():
        if ".lora_" in name:
            continue
        value = parameter.detach()
        owner, adapted, kind = name.rpartition(BASE)
        if adapted and kind == "weight":
            layer: Any = policy.hf.get_submodule(owner.removesuffix("."))
            for adapter in layer.active_adapters:
                value = value.float() + layer.get_delta_weight(adapter).float()
        yield name.replace(BASE, ""), value.to("cpu", dtype).contiguous()


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
