"""Modules of a tiny policy, and iterations of random episodes to feed them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import DataLoader, IterableDataset

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.batch import batches
from lit_agents.algorithm.credit import credited
from lit_agents.algorithm.experience import Iteration
from lit_agents.algorithm.grpo import GRPO
from lit_agents.algorithm.ppo import PPO
from lit_agents.algorithm.reinforce_pp import ReinforcePP
from lit_agents.algorithm.rloo import RLOO
from lit_agents.algorithm.sft import SFT
from lit_agents.algorithm.token_tree import token_tree
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from lit_agents.types import Episode, EpisodeGroup, Minibatch, TurnRewards
from tests.algorithm.trainers import trainer
from tests.rollout.handmade import forest

KINDS: list[type[AgentModule]] = [SFT, PPO, GRPO, RLOO, ReinforcePP]
SGD = partial(torch.optim.SGD, lr=0.1)


def made(kind: type[AgentModule], folder: Path, lora: LoRA | None = None, **settings: Any) -> Any:
    module = kind(CausalLMPolicy(str(folder), dtype="float64", lora=lora), **({"optimizer": SGD} | settings))
    module.configure_model()
    return module


class Feed(IterableDataset[Minibatch]):
    def __init__(self, make: Callable[[], Minibatch]) -> None:
        self._make = make

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Minibatch]:
        yield self._make()


def train(module: AgentModule, make: Callable[[], Minibatch], **settings: Any) -> Trainer:
    fitted = trainer(limit_val_batches=0, **settings)
    loader = DataLoader(Feed(make), batch_size=None)
    fitted.fit(module, loader, loader)
    return fitted


def collected(module: AgentModule, seed: int = 0) -> Iteration:
    """Random episodes in three groups, with the log-probabilities the policy itself gives them."""
    groups = []
    for g in range(3):
        members = []
        for e in forest(seed + g, episodes=3, vocabulary=200):
            with torch.no_grad():
                logprobs = iter(module.policy.score(token_tree([e]), module.temperature).logprobs_BA[0].tolist())
            turns = [replace(t, action_logprobs=tuple(next(logprobs) for _ in t.action_ids)) for t in e.turns]
            members.append(replace(e, turns=tuple(turns)))
        groups.append(EpisodeGroup(members[0].task, tuple(members)))
    values = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed))
    rewards = [
        TurnRewards.of({"r": values[b, : len(e.turns)].tolist()})
        for b, e in enumerate(e for group in groups for e in group.episodes)
    ]
    return Iteration(tuple(groups), tuple(rewards))


def played_by(found: Iteration, version: int) -> Iteration:
    """The same episodes, sampled by another version of the policy."""

    def changed(e: Episode) -> Episode:
        return replace(e, turns=tuple(replace(t, policy_version=version) for t in e.turns))

    return replace(found, groups=tuple(EpisodeGroup(g.task, tuple(map(changed, g.episodes))) for g in found.groups))


LARGE = 10_000
"""A budget under which everything goes through the model at once."""


def cut(module: AgentModule, found: Iteration, budget: int = LARGE, version: int | None = None) -> Minibatch:
    module.keep_reference()
    version = (-1 if module.demonstrated else 0) if version is None else version
    data, _ = credited(played_by(found, version), module, budget)
    (minibatch,) = batches(data, range(9), 1, budget, module.per_episode_mean, False)
    return minibatch
