"""A sampler that is not quite the trainer: what is logged of it, and the correction for it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.batch import Credited, batches
from lit_agents.algorithm.credit import credited
from lit_agents.algorithm.experience import Iteration
from lit_agents.algorithm.grpo import GRPO
from lit_agents.algorithm.ppo import PPO
from lit_agents.algorithm.rloo import RLOO
from lit_agents.algorithm.token_tree import token_tree
from lit_agents.types import EpisodeGroup
from tests.algorithm.hand_fed import LARGE, collected, made, train
from tests.algorithm.trainers import QUIET, trainer

pytestmark = QUIET
SHIFTS = (0.0, 0.3, -0.4, 1.2)
"""What the sampler's log-probabilities are below the trainer's, token after token, in turns."""


def otherwise_sampled(found: Iteration) -> tuple[Iteration, list[list[float]]]:
    """The same episodes from a sampler with other log-probabilities, and by how much they are other."""
    shifts, groups = list[list[float]](), []
    for group in found.groups:
        episodes = []
        for e in group.episodes:
            turns, mine = [], list[float]()
            for turn in e.turns:
                here = [SHIFTS[(len(mine) + i) % 4] for i in range(len(turn.action_ids))]
                mine += here
                noted = tuple(p - d for p, d in zip(turn.action_logprobs, here, strict=True))
                turns.append(replace(turn, action_logprobs=noted, policy_version=0))
            episodes.append(replace(e, turns=tuple(turns)))
            shifts.append(mine)
        groups.append(EpisodeGroup(group.task, tuple(episodes)))
    return replace(found, groups=tuple(groups)), shifts


def numbers(module: AgentModule, data: Credited, minibatches: int = 1) -> dict[str, float]:
    """What is logged of an iteration."""

    class Steps(IterableDataset[Any]):
        def __len__(self) -> int:
            return minibatches

        def __iter__(self) -> Any:
            yield from batches(data, range(9), minibatches, 40, False, False)

    loader = DataLoader(Steps(), batch_size=None)
    trainer(limit_val_batches=0).fit(module, loader, loader)
    return module.numbers


def expected(shifts: list[float], cap: float | None = None) -> dict[str, float]:
    found = {
        "sampler_gap": sum(map(abs, shifts)) / len(shifts),
        "sampler_kl": sum(math.exp(d) - 1 - d for d in shifts) / len(shifts),
        "sampler_ratio_max": math.exp(max(shifts)),
    }
    return found if cap is None else found | {"sampler_truncated": sum(math.exp(d) > cap for d in shifts) / len(shifts)}


@pytest.mark.parametrize("cap", [None, 1.25, 2.0])
@pytest.mark.parametrize("kind", [RLOO, PPO])
def test_what_is_logged_of_the_sampler_is_what_a_hand_finds(folder: Path, kind, cap: float | None):
    module = made(kind, folder, importance_cap=cap)
    found, shifts = otherwise_sampled(collected(module))
    data, _ = credited(found, module, 40)
    logged = numbers(module, data)
    hand = expected([d for mine in shifts for d in mine], cap)
    assert {name: value for name, value in logged.items() if "sampler" in name} == pytest.approx(hand, rel=1e-4)
    assert logged["logprob_gap"] == pytest.approx(hand["sampler_gap"], rel=1e-4)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_the_sampler_is_held_against_the_weights_it_had(folder: Path, cap: float | None):
    module = made(RLOO, folder, importance_cap=cap)
    module.optimizer = lambda groups: torch.optim.SGD(groups, lr=20.0)  # after the first step nothing is as it was
    found, shifts = otherwise_sampled(collected(module))
    data, _ = credited(found, module, LARGE)
    first = [len(part.tree.last_B) for part in next(iter(batches(data, range(9), 3, 40, False, False))).parts]
    assert 0 < sum(first) < 9
    logged = numbers(module, data, minibatches=3)
    step = expected([d for mine in shifts[: sum(first)] for d in mine])
    if cap is None:  # the tokens of the first step
        assert {name: logged[name] for name in step} == pytest.approx(step, rel=1e-4)
    else:  # the mean of the three steps' means, each over its tokens
        rows = [sum(len(p.tree.last_B) for p in m.parts) for m in batches(data, range(9), 3, 40, False, False)]
        edges = [sum(rows[:i]) for i in range(4)]
        gaps = [expected([d for mine in shifts[a:b] for d in mine])["sampler_gap"] for a, b in pairwise(edges)]
        assert logged["sampler_gap"] == pytest.approx(sum(gaps) / 3, rel=1e-4)
    assert logged["logprob_gap"] > 2 * logged["sampler_gap"]


@pytest.mark.parametrize("cap", [None, 1.25, 2.0])
def test_a_corrected_step_is_the_policy_gradient_times_the_truncated_ratio(folder: Path, cap: float | None):
    module = made(GRPO, folder, importance_cap=cap, divide_by_std=False, clip=0.01, dual_clip=None)
    found, shifts = otherwise_sampled(collected(module))
    data, _ = credited(found, module, 40)
    loss, tokens = torch.zeros((), dtype=torch.float64), 0
    for b, e in enumerate(found.episodes):
        logprobs = module.policy.score(token_tree([e]), 1.0).logprobs_BA[0]
        for i, d in enumerate(shifts[b]):
            advantage = float(data.advantages_BA[b, i])
            ratio, tokens = math.exp(d), tokens + 1
            if cap is not None:  # at the trainer's own ratio of 1 nothing is clipped
                loss = loss - min(ratio, cap) * advantage * logprobs[i]
            elif not (ratio > 1.01 and advantage > 0) and not (ratio < 0.99 and advantage < 0):
                loss = loss - ratio * advantage * logprobs[i]
    gradients = torch.autograd.grad(loss / tokens, list(module.policy.trainable.values()))
    before = [p.detach().clone() for p in module.policy.trainable.values()]
    (minibatch,) = batches(data, range(9), 1, 40, False, False)
    train(module, lambda: minibatch)
    for p, was, gradient in zip(module.policy.trainable.values(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), was - 0.1 * gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))


def test_what_the_sampler_said_stays_as_it_is_and_the_trainers_own_stands_beside_it(folder: Path):
    module, without = made(RLOO, folder, importance_cap=2.0), made(RLOO, folder)
    found, shifts = otherwise_sampled(collected(module))
    data, plain = credited(found, module, 40)[0], credited(found, without, 40)[0]
    assert torch.equal(data.columns.logprobs_BA, plain.columns.logprobs_BA)
    assert torch.equal(plain.own_logprobs_BA, plain.columns.logprobs_BA)
    for b, mine in enumerate(shifts):
        difference = (data.own_logprobs_BA - data.columns.logprobs_BA)[b]
        assert difference[: len(mine)].tolist() == pytest.approx(mine, abs=1e-5)
        assert difference[len(mine) :].eq(0).all()
