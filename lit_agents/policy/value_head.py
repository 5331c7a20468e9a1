"""The critic: what the rest of an episode is worth, read off the policy's last hidden state."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """Two layers, in float32. Begins at exactly 0 everywhere, so that the first advantages are the returns themselves."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the seed's head, whatever was drawn before: a resumed run has it too
            torch.manual_seed(torch.initial_seed())
            self.inner = nn.Linear(hidden_size, hidden_size)
            self.outer = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (...)."""
        with torch.autocast(hidden.device.type, enabled=False):  # the trainer's, in bf16-mixed
            inner = torch.tanh(self.inner(hidden.to(self.inner.weight.dtype)))
            return cast(Tensor, self.outer(inner).squeeze(-1))
