"""Losses: pure functions of (B, A) columns, one value per action token (docs/formulas.md, 2, 3 and 7).

Every loss is a sum over tokens times ``weights_BA``. Whatever a loss is to be averaged over (tokens of the batch, tokens
of an episode) is decided where the weights are made, so micro-batches and ranks add up to exactly the loss of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_weights(mask_BA: Tensor, per_episode: bool) -> Tensor:
    """What each action token counts for, (B, A) summing to 1.

    Args:
        per_episode: False: every token of the batch counts the same. True: every episode counts the same, so a token of a
            long episode counts less (the length bias of the original GRPO).
    """
    weights = mask_BA.to(torch.float32)
    if per_episode:
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
    return weights / weights.sum().clamp(min=1e-9)


def _aligned(*columns: Tensor) -> None:
    """Refuse columns of different shapes: (B, 1) beside (B, A), or (A,) beside (A, A), would broadcast without a word."""
    shapes = [tuple(column.shape) for column in columns]
    if len(set(shapes)) > 1:
        raise ValueError(f"the columns of a loss must have one shape, not {shapes}")


def negative_log_likelihood(logprobs_BA: Tensor, weights_BA: Tensor) -> Tensor:
    """SFT on demonstrated action tokens."""
    _aligned(logprobs_BA, weights_BA)
    return -(weights_BA * logprobs_BA).sum()


def clipped_surrogate(
    logprobs_BA: Tensor,
    old_logprobs_BA: Tensor,
    advantages_BA: Tensor,
    weights_BA: Tensor,
    clip: float,
    dual_clip: float | None,
    factors_BA: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """PPO's policy loss with the dual clip (Ye et al. 2020): a bad action that became likely pulls at most ``dual_clip`` times.

    Args:
        factors_BA: what each token's loss is multiplied by, as in `truncated_ratio`; None for 1.

    Returns:
        The loss, and the share of token weight on which a clip acted.
    """
    counts_BA = weights_BA if factors_BA is None else weights_BA * factors_BA.detach()
    _aligned(logprobs_BA, old_logprobs_BA, advantages_BA, weights_BA, counts_BA)
    ratio = (logprobs_BA - old_logprobs_BA).exp()
    plain = -advantages_BA * ratio
    clipped = -advantages_BA * ratio.clamp(1 - clip, 1 + clip)
    loss = torch.maximum(plain, clipped)
    acted = clipped > plain
    if dual_clip is not None:
        ceiling = -advantages_BA * dual_clip
        above = (advantages_BA < 0) & (loss > ceiling)
        loss, acted = torch.where(above, ceiling, loss), acted | above
    return (counts_BA * loss).sum(), (weights_BA * acted).sum()


def truncated_ratio(own_logprobs_BA: Tensor, old_logprobs_BA: Tensor, cap: float) -> Tensor:
    """min(exp(own - old), cap): what a token the sampler drew counts for in the trainer's expectations (Yao et al. 2025)."""
    _aligned(own_logprobs_BA, old_logprobs_BA)
    return (own_logprobs_BA - old_logprobs_BA).exp().clamp(max=cap)


def clipped_value(
    values_BA: Tensor, old_values_BA: Tensor, returns_BA: Tensor, weights_BA: Tensor, clip: float | None
) -> Tensor:
    """Half the squared error of the critic; with ``clip`` the worse of it and of the prediction held near the old one."""
    _aligned(values_BA, old_values_BA, returns_BA, weights_BA)
    error = (values_BA - returns_BA).square()
    if clip is not None:
        held = old_values_BA + (values_BA - old_values_BA).clamp(-clip, clip)
        error = torch.maximum(error, (held - returns_BA).square())
    return 0.5 * (weights_BA * error).sum()


def kl_k1(logprobs_BA: Tensor, ref_logprobs_BA: Tensor) -> Tensor:
    """Unbiased estimate of KL(policy || reference) per token, in nats; useless as a loss (its gradient is 0 on average)."""
    _aligned(logprobs_BA, ref_logprobs_BA)
    return logprobs_BA - ref_logprobs_BA


def kl_k3(logprobs_BA: Tensor, ref_logprobs_BA: Tensor) -> Tensor:
    """Unbiased, never negative, low-variance estimate of KL(policy || reference) per token, in nats (Schulman 2020)."""
    _aligned(logprobs_BA, ref_logprobs_BA)
    minus_d = ref_logprobs_BA - logprobs_BA
    return minus_d.exp() - 1 - minus_d


def explained_variance(values_BA: Tensor, returns_BA: Tensor, mask_BA: Tensor) -> Tensor:
    """1 - Var(return - value) / Var(return) over action tokens: 1 is a perfect critic, 0 one that knows nothing.

    Not a number where all returns are the same: there is nothing to explain.
    """
    returns, errors = returns_BA[mask_BA], (returns_BA - values_BA)[mask_BA]
    variance = returns.var(correction=0)
    return torch.where(variance > 1e-8, 1 - errors.var(correction=0) / variance, torch.nan)
