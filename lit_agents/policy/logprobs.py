"""From hidden states to log-probabilities, without ever holding the logits of many tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ROWS = 512
"""Tokens whose logits are held at once: a vocabulary of 152,000 in float32 takes .3 GB for them."""


def scored(logits_of: Callable[[Tensor], Tensor], hidden_UH: Tensor, targets_U: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and entropy of its distribution without gradient; (U,) both, nats.

    Args:
        logits_of: (rows, H) -> (rows, V), at least float32. Above `ROWS` tokens it is called again in the backward pass, which
            costs less than the memory would.
    """
    if len(targets_U) <= ROWS:
        return _scored(logits_of, hidden_UH, targets_U)
    pairs = zip(torch.split(hidden_UH, ROWS), torch.split(targets_U, ROWS), strict=True)
    parts = [checkpoint(_scored, logits_of, hidden, targets, use_reentrant=False) for hidden, targets in pairs]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _scored(logits_of: Callable[[Tensor], Tensor], hidden_UH: Tensor, targets_U: Tensor) -> tuple[Tensor, Tensor]:
    logprobs_UV = torch.log_softmax(logits_of(hidden_UH), dim=-1)
    return logprobs_UV.gather(1, targets_U[:, None]).squeeze(1), _entropy(logprobs_UV.detach())


def _entropy(logprobs_UV: Tensor, rows: int = 64) -> Tensor:
    """(U, V) -> (U,), nats; a few rows at a time, so that nothing as large as the logits is made again."""
    parts = [(part.exp() * part).sum(-1) for part in torch.split(logprobs_UV, rows)]
    return -torch.cat(parts)
