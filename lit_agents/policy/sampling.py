"""Choosing a token: the distribution, its log-probabilities, and random numbers that belong to an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_agents.errors import BadInput

BLOCK = 256  # tokens


@dataclass(frozen=True)
class Sampling:
    """How actions are drawn. Stated with every number that was measured with it."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    max_tokens: int = 24
    """Longest action, its end-of-turn token included; one that is longer is unfinished and ends the episode."""
    top_p: float = 1.0
    """Keep the likeliest tokens that together reach this probability. Evaluation only."""
    top_k: int = 0
    """Keep this many likeliest tokens; 0 keeps all. Evaluation only."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.temperature < 0:
            raise BadInput("sampling.temperature", f"{self.temperature} is below 0.", "Use 0 for greedy, 1 to sample.")
        if self.max_tokens < 1:
            raise BadInput(
                "sampling.max_tokens", f"{self.max_tokens} leaves no token to sample.", "Set it to 16 or more."
            )
        if not 0 < self.top_p <= 1:
            raise BadInput("sampling.top_p", f"{self.top_p} is not above 0 and at most 1.", "Use 1 to keep all tokens.")
        if self.top_k < 0:
            raise BadInput("sampling.top_k", f"{self.top_k} is below 0.", "Use 0 to keep all tokens.")

    def check_trainable(self, flag: str) -> None:
        """Training needs the full distribution: a truncated sample under an untruncated loss is biased.

        Raises:
            BadInput: greedy or truncated.
        """
        if self.temperature == 0:
            raise BadInput(f"{flag}.temperature", "greedy actions have no gradient and no variety.", "Set it to 1.")
        if self.top_p < 1 or self.top_k > 0:
            reason = "the loss is of the whole distribution, so the actions must be drawn from it untruncated."
            raise BadInput(
                f"{flag}.top_p / top_k", reason, "Set top_p to 1 and top_k to 0; truncate in evaluation only."
            )


def log_distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """(B, V) logits already divided by the temperature -> (B, V) log-probabilities of what is really drawn from."""
    logprobs_BV = torch.log_softmax(logits_BV, dim=-1)
    if sampling.top_k == 0 and sampling.top_p == 1:
        return logprobs_BV
    ordered_BV, order_BV = logprobs_BV.sort(dim=-1, descending=True)
    before_BV = ordered_BV.exp().cumsum(-1) - ordered_BV.exp()
    dropped_BV = before_BV >= sampling.top_p  # the token that crosses top_p is still kept, so one always is
    if sampling.top_k:
        dropped_BV[:, sampling.top_k :] = True
    dropped_BV = torch.zeros_like(dropped_BV).scatter(1, order_BV, dropped_BV)
    return torch.log_softmax(logprobs_BV.masked_fill(dropped_BV, float("-inf")), dim=-1)


def draw(
    logits_RV: Tensor, sampling: Sampling, streams: Sequence[Sequence[np.random.Generator]]
) -> list[list[tuple[int, float]]]:
    """Tokens by inverting the distribution function at the streams' next random numbers.

    Args:
        logits_RV: one row for all conversations that are still equal, divided by the temperature.
        streams: those that draw from each row.

    Returns:
        For each stream its token, and the token's log-probability under the distribution drawn from (0 where the choice is
        greedy).
    """
    if sampling.temperature == 0:
        return [[(token, 0.0)] * len(row) for token, row in zip(logits_RV.argmax(-1).tolist(), streams, strict=True)]
    logprobs_RV = log_distribution(logits_RV, sampling)
    most = max(map(len, streams))
    uniform_RM = torch.tensor(
        [[*(s.random() for s in row), *[0.0] * (most - len(row))] for row in streams],
        dtype=torch.float64,
        device=logits_RV.device,
    )
    ids_RM = _invert(logprobs_RV.exp(), uniform_RM)
    scores_RM = logprobs_RV.gather(1, ids_RM)
    pairs = [
        list(zip(ids, scores, strict=True)) for ids, scores in zip(ids_RM.tolist(), scores_RM.tolist(), strict=True)
    ]
    return [row[: len(s)] for row, s in zip(pairs, streams, strict=True)]


def _invert(probabilities_RV: Tensor, uniform_RM: Tensor) -> Tensor:
    """(R, M) where the distribution functions of R rows cross M numbers from 0 to 1 each.

    The function is summed up over blocks of tokens first, then inside the one block that matters: a running sum over a whole
    vocabulary costs a tenth of a decoding step. In float64: in float32 it is off by more than the probability of most tokens.
    """
    blocks_RNW = F.pad(probabilities_RV, (0, -probabilities_RV.shape[1] % BLOCK)).view(len(uniform_RM), -1, BLOCK)
    reached_RN = blocks_RNW.sum(-1, dtype=torch.float64).cumsum(-1)
    wanted_RM = _below(uniform_RM * reached_RN[:, -1:], reached_RN[:, -1:])
    block_RM = torch.searchsorted(reached_RN, wanted_RM, right=True)
    before_RM = F.pad(reached_RN, (1, 0)).gather(1, block_RM)
    rows_R1 = torch.arange(len(block_RM), device=block_RM.device)[:, None]
    inside_RMW = before_RM[..., None] + blocks_RNW[rows_R1, block_RM].cumsum(-1, dtype=torch.float64)
    wanted_RM1 = _below(wanted_RM[..., None], inside_RMW[..., -1:])
    return block_RM * BLOCK + torch.searchsorted(inside_RMW, wanted_RM1, right=True).squeeze(-1)


def _below(wanted: Tensor, total: Tensor) -> Tensor:
    """Just below the total at most, so that rounding never reaches past the last token that has a probability."""
    return torch.minimum(wanted, total.nextafter(torch.zeros_like(total)))
