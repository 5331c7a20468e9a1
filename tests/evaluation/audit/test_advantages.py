"""The slow advantages against numbers worked by hand, and what they tolerate."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.grpo import GRPO
from lit_agents.algorithm.kl import KL
from lit_agents.algorithm.ppo import PPO
from lit_agents.algorithm.reinforce_pp import ReinforcePP
from lit_agents.algorithm.rloo import RLOO
from lit_agents.evaluation.audit.advantages import Trained, check_iteration
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.types import StopReason
from tests.evaluation.audit.test_attempts import FACTS
from tests.tiny import tiny_model_folder


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> CausalLMPolicy:
    return CausalLMPolicy(str(tiny_model_folder(tmp_path_factory.mktemp("tiny"))))


def faults(module: AgentModule, rows: list[Trained], coefficient: float = 0.0) -> list[str]:
    findings = Findings()
    check_iteration(module, [row.facts for row in rows], rows, coefficient, findings)
    assert findings.checked["advantages computed again"] == sum(sum(row.facts.lengths) for row in rows)
    return findings.faults


def row(
    line: int, rewards: tuple[float, ...], lengths: tuple[int, ...], advantages: list[float], **more: Any
) -> Trained:
    facts = replace(FACTS, line=line, member=line, rewards=rewards, lengths=lengths)
    return Trained(replace(facts, stop=more.pop("stop", facts.stop)), line, advantages, **more)


def made(kind: type[AgentModule], policy: CausalLMPolicy, **settings: Any) -> AgentModule:
    return kind(policy, partial(torch.optim.SGD, lr=0.1), **settings)


def test_returns_of_a_group_against_each_other(policy: CausalLMPolicy):
    # returns 1, 2, 6: mean 3, deviation sqrt((4 + 1 + 9) / 2) = sqrt 7; the others' means are 4, 3.5 and 1.5
    returns = (1.0, 2.0, 6.0)
    by_std = [-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5]
    for module, expected in (
        (made(GRPO, policy), by_std),
        (made(GRPO, policy, divide_by_std=False), [-2.0, -1.0, 3.0]),
        (made(RLOO, policy), [-3.0, -1.5, 4.5]),
    ):
        rows = [row(i, (0.0, r), (1, 2), [a] * 3) for i, (r, a) in enumerate(zip(returns, expected, strict=True))]
        assert faults(module, rows) == []
        rows[1].advantages[2] += 0.01
        assert len(faults(module, rows)) == 1
    silent = [row(i, (0.1 + 0.2,) if i else (0.3,), (1,), [0.0]) for i in range(3)]
    assert faults(made(GRPO, policy), silent) == []


def test_a_kl_in_the_reward_is_part_of_the_return(policy: CausalLMPolicy):
    # log-probabilities -1, -1 against -3, -1: KL 2, so with coefficient 1/4 the return is 1 - 1/2; the other's is 0
    module = made(RLOO, policy, kl=KL(reward=0.25))
    held = row(0, (1.0,), (2,), [0.5, 0.5], logprobs=[-1.0, -1.0], reference=[-3.0, -1.0])
    free = row(1, (0.0,), (1,), [-0.5], logprobs=[-2.0], reference=[-2.0])
    assert faults(module, [held, free], 0.25) == []
    assert len(faults(module, [held, free], 0.5)) == 2


def test_discounted_returns_are_whitened_over_all_tokens(policy: CausalLMPolicy):
    # gamma 1/2: the rewards 0, 4, 2 give the returns 2.5, 5, 2; the other one's is 2.5; mean 3, variance 1.375
    returns, deviation = [2.5, 5.0, 2.0], 1.375**0.5
    rows = [
        row(0, (4.0, 2.0), (2, 1), [(r - 3) / deviation for r in returns]),
        row(1, (2.5,), (1,), [-0.5 / deviation]),
    ]
    assert faults(made(ReinforcePP, policy, gamma=0.5), rows) == []
    assert len(faults(made(ReinforcePP, policy, gamma=0.6), rows)) == 2


@pytest.mark.parametrize(("stop", "after"), [(StopReason.LOST, 0.0), (StopReason.CONTEXT_LIMIT, 8.0)])
def test_gae_and_the_critics_targets(policy: CausalLMPolicy, stop: StopReason, after: float):
    # see tests/algorithm/test_base.py: gamma and lambda 1/2, two tokens of value 8, the reward 1 on the second
    raw = [-5.75, -7.0] if not after else [-4.75, -3.0]
    mean, half = sum(raw) / 2, abs(raw[0] - raw[1]) / 2
    targets = [raw[0] + 8, raw[1] + 8]
    whitened = [(value - mean) / half for value in raw]
    module = made(PPO, policy, gamma=0.5, lam=0.5, bootstrap_truncated=True)
    sound = row(0, (1.0,), (2,), whitened, values=[8.0, 8.0], returns=targets, stop=stop)
    assert faults(module, [sound]) == []
    assert len(faults(module, [replace(sound, returns=[targets[0] + 0.1, targets[1]])])) == 1
    unfinished = replace(sound, facts=replace(sound.facts, stop=StopReason.UNFINISHED_ACTION))
    assert bool(faults(module, [unfinished])) is bool(after)  # it may not have been paid what follows
