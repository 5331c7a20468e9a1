"""Frozen bfloat16 matrices on a CPU, laid out once as its kernels want them.

oneDNN lays a weight out anew in every product, which for the few rows of a decoding step costs a quarter to a third of the time.
The products are the same bit for bit. Takes the memory of a second copy of the frozen matrices.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 64
"""The layout is made for about this many; it differs little."""


def pack_frozen(model: nn.Module) -> None:
    """Let every frozen bfloat16 linear layer take its packed weight where it can; nothing is packed before it is needed."""
    if not _there():
        return
    for layer in model.modules():
        if type(layer) is nn.Linear and layer.weight.dtype == torch.bfloat16 and not layer.weight.requires_grad:
            layer.forward = _Packed(layer)  # type: ignore[method-assign, assignment]


def _there() -> bool:
    """Whether this torch, on this processor, has such products."""
    try:
        return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # type: ignore[no-untyped-call]
    except (AttributeError, RuntimeError):
        return False


class _Packed:
    """The forward pass of a frozen linear layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._made_of: tuple[Tensor, int] | None = None  # held, so that no other weight can get its address
        self._weight: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """As ``nn.Linear.forward``; where a gradient has to come back, and for every other type and device, it is that."""
        weight = self._layer.weight
        backward = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        if backward or x.device.type != "cpu" or not x.dtype == weight.dtype == torch.bfloat16:
            return F.linear(x, weight, self._layer.bias)
        of = self._made_of  # a weight that was replaced or written to is packed again
        if of is None or (of[0].data_ptr(), of[1]) != (weight.data_ptr(), weight._version):
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
            self._made_of = (weight.detach(), weight._version)
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self._weight, self._layer.bias, "none", [], ""))
