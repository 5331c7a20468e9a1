"""Advantages for the episodes of one iteration: values, KL penalty, then the credit of the algorithm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_agents.algorithm import losses
from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.batch import Credited, columns_of, packed
from lit_agents.algorithm.experience import Assessment, Experience, Iteration
from lit_agents.algorithm.token_tree import token_tree


def credited(found: Iteration, module: AgentModule, budget: int) -> tuple[Credited, dict[str, float]]:
    """Advantages for every action token, and numbers to log.

    Args:
        budget: distinct tokens that go through the model at once.
    """
    columns = columns_of(found.episodes, found.rewards)
    mask_BA, rewards_BA, numbers = columns.mask_BA, columns.rewards_BA, dict[str, float]()
    own_BA = ref_BA = columns.logprobs_BA
    values_BA, after_B = torch.zeros_like(rewards_BA), torch.zeros(len(found.episodes))
    if module.needs_assessment:
        assessed = _assessed(found, module, budget, mask_BA)
        own_BA = own_BA if module.importance_cap is None else assessed.own_BA
        ref_BA = assessed.reference_BA if module.kl.used else ref_BA
        values_BA = torch.where(mask_BA, assessed.values_BA, 0.0)
        after_B = assessed.after_B * torch.tensor([float(e.stop.has_continuation) for e in found.episodes])
    if module.kl.used:
        difference_BA = torch.where(mask_BA, losses.kl_k1(columns.logprobs_BA, ref_BA), 0.0)
        everywhere = torch.stack([difference_BA.sum(), mask_BA.sum(), torch.tensor(float(len(found.episodes)))])
        # on all ranks together, or each would adapt a coefficient of its own
        total, tokens, episodes = module.sum_over_ranks(everywhere).tolist()
        numbers["kl"] = total / tokens
        if module.kl.reward:
            rewards_BA = rewards_BA - module.kl_coefficient * difference_BA
        before = module.kl_coefficient
        module.adapt_kl(numbers["kl"], int(episodes))
        numbers["kl_coefficient"] = before if module.kl.reward else module.kl_coefficient  # what this iteration uses
    advantages_BA, returns_BA = module.credit(
        Experience(mask_BA, rewards_BA, values_BA, after_B, found.group_numbers())
    )
    if module.has_critic:
        explained = float(losses.explained_variance(values_BA, returns_BA, mask_BA))
        numbers |= {} if math.isnan(explained) else {"explained_variance": explained}
    version = found.policy_version
    made = (advantages_BA, returns_BA, values_BA, own_BA, ref_BA, found.group_numbers(), version)
    return Credited(found.episodes, columns, *made), numbers


def _assessed(found: Iteration, module: AgentModule, budget: int, mask_BA: Tensor) -> Assessment:
    """`AgentModule.assess` over all episodes, in parts."""
    own_BA, reference_BA, values_BA = (torch.zeros(mask_BA.shape) for _ in range(3))
    whole = Assessment(own_BA, reference_BA, values_BA, torch.zeros(len(mask_BA)))
    for rows in packed(found.episodes, found.group_numbers().tolist(), budget):
        tree = token_tree([found.episodes[b] for b in rows]).to(module.policy.device)
        part = Assessment(*(x.float().cpu() for x in module.assess(tree)))
        for column_BA, some_BA in zip(whole[:3], part[:3], strict=True):
            column_BA[rows, : some_BA.shape[1]] = some_BA
        whole.after_B[rows] = part.after_B
    return whole
