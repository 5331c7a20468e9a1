"""Log-probabilities computed again: a single token that bfloat16 cannot settle is not called a fault, a real one is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.evaluation.audit.tokens import logprob_gap
from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from tests.rollout.handmade import episode
from tests.tiny import tiny_model_folder


@pytest.fixture
def policy(tmp_path: Path) -> CausalLMPolicy:
    """bfloat16 weights and adapters in float32 that are not zero."""
    made = CausalLMPolicy(str(tiny_model_folder(tmp_path)), dtype="bfloat16", lora=LoRA(rank=2, alpha=2))
    made.load()
    with torch.no_grad():
        for p in made.trainable.values():
            p.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return made


def stored(policy: CausalLMPolicy, change: float = 0.0) -> list[StoredEpisode]:
    """Three episodes with the log-probabilities of the policy in float32, one of them changed."""
    found = []
    for first in range(3):
        plain = episode([((first, 2, 3), (4, 5, 6)), ((7, 8), (9, first))])
        with torch.no_grad(), policy.in_full_precision():
            scores = policy.score(token_tree([plain]), 1.0).logprobs_BA[0].tolist()
        scores[1] += change if first == 1 else 0.0
        one, other = plain.turns
        turns = replace(one, action_logprobs=tuple(scores[:3])), replace(other, action_logprobs=tuple(scores[3:]))
        found.append(StoredEpisode("rl", 1, replace(plain, turns=turns), None))
    return found


def test_in_full_precision_the_weights_are_the_same_and_come_back_as_they_were(policy: CausalLMPolicy):
    before = {name: (p.data_ptr(), p.dtype, p.clone()) for name, p in policy.named_parameters()}
    tree = token_tree([episode([((1, 2, 3), (4, 5))])])
    with torch.no_grad():
        coarse = policy.score(tree, 1.0).logprobs_BA
        with policy.in_full_precision():
            assert {p.dtype for p in policy.parameters()} == {torch.float32}
            fine = policy.score(tree, 1.0).logprobs_BA
        again = policy.score(tree, 1.0).logprobs_BA
    assert torch.equal(again, coarse) and 0 < (fine - coarse).abs().max() < 0.2
    for name, p in policy.named_parameters():
        pointer, dtype, value = before[name]
        assert (p.data_ptr(), p.dtype) == (pointer, dtype) and torch.equal(p, value)
    assert policy.dtype == torch.bfloat16 and policy.mixed is None


def test_a_token_that_bfloat16_cannot_settle_is_computed_again(policy: CausalLMPolicy, monkeypatch):
    episodes, plain, calls = stored(policy), policy.score, []

    def unstable(tree, temperature):
        calls.append(policy.dtype)
        found = plain(tree, temperature)
        if policy.dtype == torch.bfloat16:
            found.logprobs_BA[1, 1] += 1.9  # what was seen once in 4,355 tokens
        return found

    monkeypatch.setattr(policy, "score", unstable)
    gaps = [gap for _, gap in logprob_gap(policy, episodes, 1.0, tolerance=1.0)]
    assert calls == [torch.bfloat16, torch.float32]
    assert gaps[1].largest < 1e-6 < gaps[0].largest < 0.2 and [gap.tokens for gap in gaps] == [5, 5, 5]


def test_a_token_noted_wrongly_stays_a_fault(policy: CausalLMPolicy):
    gaps = [gap for _, gap in logprob_gap(policy, stored(policy, change=1.5), 1.0, tolerance=1.0)]
    assert gaps[1].largest == pytest.approx(1.5, abs=1e-5) and gaps[1].mean == pytest.approx(0.3, abs=1e-5)
    assert max(gaps[0].largest, gaps[2].largest) < 0.2
