"""Logits or gradients that are not finite: said as such, with the weights they come from and what to lower."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lit_agents.errors import BadInput

_LOWER = (
    "Lower the learning rate (model.optimizer, or sft.optimizer in the supervised stage) or raise model.warmup; "
    "where weights are bfloat16 or trainer.precision is 16-mixed, try policy.dtype float32 and trainer.precision 32-true."
)


class NonFinite(BadInput):
    """The policy computes no numbers any more; everything that was written before is sound."""


def refuse_non_finite(x: Tensor, model: nn.Module, where: str, what: str = "logits") -> None:
    """Refuse numbers of a model that are not finite.

    Args:
        x: of any shape. -inf among log-probabilities is refused as well: a token that was sampled has a probability.
        model: what computed them.
        where: the model or the optimizer step, for the message.
        what: they are.

    Raises:
        NonFinite: with the first weight that is not finite, or the largest one.
    """
    if not bool(torch.isfinite(x).all()):
        raise NonFinite(where, f"non-finite {what}; {suspect(model)}.", _LOWER)


@torch.no_grad()
def suspect(model: nn.Module) -> str:
    """In words, the first weight that is not finite, or the largest one."""
    largest: tuple[float, str] = (-1.0, "none")
    for name, p in model.named_parameters():
        most = float(p.detach().abs().max()) if p.numel() else 0.0
        if not math.isfinite(most):
            return f"the weight {name} is itself not finite"
        largest = max(largest, (most, name))
    return f"all weights are finite, the largest is {largest[0]:.3g} in {largest[1]}"


def gradients_are_finite(parameters: Any) -> bool:
    """Whether those that are there all are."""
    found = [p.grad for p in parameters if p.grad is not None]
    return not found or math.isfinite(float(torch.nn.utils.get_total_norm(found)))
