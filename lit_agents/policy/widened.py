"""Computing in float32 with weights that stay in bfloat16, without a second copy of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def computed_in_float32(model: nn.Module) -> Iterator[None]:
    """Let a model compute in at least float32 for a while.

    Each layer has its weights in float32 while it computes, and its own back afterwards: at any time one layer of the model is
    in memory twice. Rows of an embedding are widened, not its matrix. Without gradient.
    """
    handles: list[Any] = []
    original: dict[nn.Parameter, Tensor] = {}

    def widen(parameters: list[nn.Parameter]) -> None:
        for p in parameters:
            original.setdefault(p, p.data)
            p.data = p.data.to(torch.promote_types(torch.float32, p.dtype))

    def restore(parameters: list[nn.Parameter]) -> None:
        for p in parameters:
            if p in original:
                p.data = original.pop(p)

    try:
        for part, parameters in _parts(model):
            if isinstance(part, nn.Embedding):
                handles.append(part.register_forward_hook(lambda _part, _args, rows: rows.to(_exact(rows))))
                continue
            handles.append(part.register_forward_pre_hook(lambda _part, _args, mine=parameters: widen(mine)))
            handles.append(part.register_forward_hook(lambda *_, mine=parameters: restore(mine), always_call=True))
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        restore(list(original))


def _exact(x: Tensor) -> torch.dtype:
    return torch.promote_types(torch.float32, x.dtype)


def _parts(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Parameter]]]:
    """Modules that together hold every floating-point parameter once: the layers, and what is outside of them."""
    own = [p for p in module.parameters(recurse=False) if p.is_floating_point()]
    if own:
        yield module, own
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for layer in child:
                yield layer, [p for p in layer.parameters() if p.is_floating_point()]
        else:
            yield from _parts(child)
