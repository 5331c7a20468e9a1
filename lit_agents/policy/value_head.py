"""The critic: what the rest of an episode is worth, read off the policy's last hidden state."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """Two layers, in float32. Begins at exactly 0 everywhere, so that the first advantages are the returns themselves."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, hidden_size)
        self.outer = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (...)."""
        return cast(Tensor, self.outer(torch.tanh(self.inner(hidden.to(self.inner.weight.dtype)))).squeeze(-1))
