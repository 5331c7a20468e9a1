"""What every algorithm shares: KL, freshness, the step, the critic; through a real Trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from torch import Tensor

from lit_agents.algorithm.batch import batches
from lit_agents.algorithm.credit import credited
from lit_agents.algorithm.experience import Iteration
from lit_agents.algorithm.grpo import GRPO
from lit_agents.algorithm.kl import KL
from lit_agents.algorithm.ppo import PPO
from lit_agents.algorithm.rloo import RLOO
from lit_agents.algorithm.sft import SFT
from lit_agents.algorithm.token_tree import token_tree
from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.types import EpisodeGroup, StopReason, TurnRewards
from tests.algorithm.hand_fed import KINDS, LARGE, collected, cut, made, played_by, train
from tests.algorithm.trainers import QUIET
from tests.rollout.handmade import episode, forest

pytestmark = QUIET


class Rates(Callback):
    """The learning rate of each optimizer step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.found.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.1] * 6),
        ({"warmup": 4}, [0.025, 0.05, 0.075, 0.1, 0.1, 0.1]),
        ({"anneal": True}, [0.6 / 6, 0.5 / 6, 0.4 / 6, 0.3 / 6, 0.2 / 6, 0.1 / 6]),
        ({"warmup": 2, "anneal": True}, [0.05, 0.1, 0.1, 0.075, 0.05, 0.025]),
    ],
)
def test_the_learning_rate_follows_optimizer_steps_up_and_down(folder, settings: Any, expected: list[float]):
    module, rates = made(SFT, folder, **settings), Rates()
    found = collected(module)
    train(module, lambda: cut(module, found, version=-1), max_epochs=6, callbacks=[rates])
    assert rates.found == pytest.approx(expected)


def test_a_rate_that_is_to_fall_needs_an_end_of_the_run(folder):
    module = made(SFT, folder, anneal=True)
    found = collected(module)
    with pytest.raises(BadInput, match=r"model\.anneal: the run has no last step"):
        train(module, lambda: cut(module, found, version=-1), max_epochs=-1, max_time={"seconds": 1})


def test_settings_that_would_clip_everything_are_refused(folder):
    for settings in ({"clip": 0.0}, {"dual_clip": 1.0}, {"warmup": -1}, {"importance_cap": 0.99}):
        with pytest.raises(BadInput, match=f"model.{next(iter(settings))}"):
            made(GRPO, folder, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_a_correction_acts_or_is_refused(folder: Path, kind):
    if kind is SFT:
        with pytest.raises(BadInput, match=r"model\.importance_cap: demonstrations"):
            made(kind, folder, importance_cap=2.0)
    else:
        assert made(kind, folder, importance_cap=1.0).needs_assessment


# KL


def test_kl_is_in_the_reward_or_in_the_loss_and_never_in_both():
    with pytest.raises(BadInput, match=r"model\.kl: reward and loss"):
        KL(reward=0.1, loss=0.1)
    with pytest.raises(BadInput, match=r"model\.kl\.target"):
        KL(target=0.1)
    assert not KL().used and KL(reward=0.1).used and KL(loss=0.1).used


def test_grpo_takes_no_kl_in_the_reward(folder: Path):
    with pytest.raises(BadInput, match=r"model\.kl\.reward"):
        GRPO(CausalLMPolicy(str(folder)), kl=KL(reward=0.01))
    assert GRPO(CausalLMPolicy(str(folder)), kl=KL(loss=0.01)).kl_coefficient == 0.01


@pytest.mark.parametrize(
    ("kl", "episodes", "coefficient"),
    [
        (0.05, 50, 0.1),  # on target
        (0.055, 50, 0.1 * (1 + 0.1 * 0.5)),  # a tenth above, half a horizon
        (0.045, 50, 0.1 * (1 - 0.1 * 0.5)),
        (5.0, 50, 0.1 * (1 + 0.2 * 0.5)),  # at most a fifth
        (0.0, 100, 0.1 * (1 - 0.2)),
        (0.055, 1000, 0.1 * 1.1),  # at most one horizon
    ],
)
def test_an_adaptive_coefficient_moves_by_what_a_hand_finds(folder: Path, kl: float, episodes: int, coefficient: float):
    module = RLOO(CausalLMPolicy(str(folder)), kl=KL(reward=0.1, target=0.05, horizon=100))
    module.adapt_kl(kl, episodes)
    assert module.kl_coefficient == pytest.approx(coefficient, rel=1e-12)
    fixed = RLOO(CausalLMPolicy(str(folder)), kl=KL(reward=0.1))
    fixed.adapt_kl(kl, episodes)
    assert fixed.kl_coefficient == 0.1


def test_the_penalty_in_the_reward_is_the_coefficient_times_k1_of_every_token(folder: Path):
    module = made(RLOO, folder, kl=KL(reward=0.3))
    module.keep_reference()
    with torch.no_grad():
        for p in module.policy.trainable.values():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    found = collected(module)
    data, numbers = credited(found, module, 20)
    totals, tokens, kl = [], 0, 0.0
    for e, worth in zip(found.episodes, found.rewards, strict=True):
        with module.policy.using(module.reference), torch.no_grad():
            reference = module.policy.score(token_tree([e]), 1.0).logprobs_BA[0].tolist()
        ours = [p for t in e.turns for p in t.action_logprobs]
        penalties = [p - q for p, q in zip(ours, reference, strict=True)]
        totals.append(worth.total - 0.3 * sum(penalties))
        tokens, kl = tokens + len(ours), kl + sum(penalties)
    assert numbers["kl"] == pytest.approx(kl / tokens, rel=1e-4) and abs(kl) > 0.01
    for b in range(9):
        others = [totals[j] for j in range(9) if j // 3 == b // 3 and j != b]
        assert float(data.advantages_BA[b, 0]) == pytest.approx(totals[b] - sum(others) / 2, abs=1e-5)


def test_the_coefficient_that_is_logged_is_the_one_that_is_used(folder: Path):
    for where, moved in (("reward", False), ("loss", True)):
        module = made(RLOO, folder, kl=KL(**{where: 0.1}, target=1.0, horizon=9))
        module.keep_reference()
        _, numbers = credited(collected(module), module, 20)  # of 9 episodes, with no KL: down by a fifth
        assert module.kl_coefficient == pytest.approx(0.08)
        assert numbers["kl_coefficient"] == pytest.approx(0.08 if moved else 0.1)  # the loss comes after it has moved


def test_a_reference_is_kept_once_and_only_where_it_is_needed(folder: Path):
    module, without = made(RLOO, folder, kl=KL(reward=0.1)), made(RLOO, folder)
    module.keep_reference()
    first = module.reference
    with torch.no_grad():
        next(iter(module.policy.trainable.values())).add_(1)
    module.keep_reference()
    without.keep_reference()
    assert module.reference is first and without.reference is None
    with pytest.raises(RuntimeError, match="reference policy was not set"):
        made(RLOO, folder, kl=KL(reward=0.1)).assess(token_tree([episode([([1], [2])])]))


# freshness


@pytest.mark.parametrize("kind", [GRPO, PPO])
def test_a_batch_sampled_with_other_weights_than_the_iteration_began_with_is_refused(folder: Path, kind):
    module = made(kind, folder)
    found = collected(module)
    train(module, lambda: cut(module, found, version=module.global_step), max_epochs=2)  # fresh
    assert module.global_step == 2
    module = made(kind, folder)
    with pytest.raises(RuntimeError, match="sampled at policy version -1, trained at 0"):
        train(made(kind, folder), lambda: cut(module, found, version=-1))  # nobody noted a version
    with pytest.raises(RuntimeError, match="sampled at policy version 0, trained at 1"):
        train(module, lambda: cut(module, found, version=0), max_epochs=2)


def test_episodes_of_two_versions_are_no_iteration(folder: Path):
    module = made(GRPO, folder)
    found = collected(module)
    mixed = replace(found, groups=(*found.groups[:2], played_by(found, 1).groups[2]))
    with pytest.raises(RuntimeError, match=r"several versions of the policy: \{0, 1\}"):
        credited(mixed, module, LARGE)


def test_a_demonstration_is_never_stale(folder: Path):
    module = made(SFT, folder)
    found = collected(module)
    train(module, lambda: cut(module, found, version=-1), max_epochs=3)
    assert module.global_step == 3


# the step


def test_imitation_is_held_near_nothing(folder: Path):
    for kl in (KL(loss=0.5), KL(reward=0.5)):
        with pytest.raises(BadInput, match=r"model\.kl: an expert's tokens"):
            made(SFT, folder, kl=kl)


@pytest.mark.parametrize(
    ("kind", "kl"), [(kind, kl) for kind in KINDS for kl in (KL(), KL(loss=0.5)) if not (kl.used and kind is SFT)]
)
def test_a_step_is_the_same_whatever_goes_through_the_model_at_once(folder: Path, kind, kl: KL):
    steps, parts = [], []
    for budget in (LARGE, 60, 30, 1):
        module = made(kind, folder, kl=kl)
        if kind is PPO:
            torch.manual_seed(0)
            torch.nn.init.normal_(module.value_head.inner.weight, std=0.1)
            torch.nn.init.normal_(module.value_head.inner.bias, std=0.1)
            torch.nn.init.normal_(module.value_head.outer.weight, std=0.1)
        before = {n: p.detach().clone() for n, p in module.named_parameters()}
        found = collected(module)
        module.keep_reference()
        if kl.used:
            module.reference = {n: p * 1.01 for n, p in module.reference.items()}
        minibatch = cut(module, found, budget)
        parts.append(len(minibatch.parts))
        train(module, lambda m=minibatch: m)
        steps.append({n: p.detach() - before[n] for n, p in module.named_parameters()})
    assert parts[0] == 1 < parts[1] < parts[2] <= parts[3] == 9
    for name, whole in steps[0].items():
        assert whole.abs().max() > 0, name
        # a parameter is rounded once to its dtype when it is updated, so a step is known to one unit in its last place
        allowed = 3e-6 * whole.abs().max() + torch.finfo(whole.dtype).eps * before[name].abs()
        for other in steps[1:]:
            assert bool(((other[name] - whole).abs() <= allowed).all()), name


def test_a_step_is_the_learning_rate_times_the_policy_gradient_over_single_conversations(folder: Path):
    module = made(RLOO, folder)
    found = collected(module)
    totals = [r.total for r in found.rewards]
    loss, tokens = torch.zeros((), dtype=torch.float64), 0
    for b, e in enumerate(found.episodes):
        others = [totals[j] for j in range(9) if j // 3 == b // 3 and j != b]
        advantage = totals[b] - sum(others) / 2
        logprobs = module.policy.score(token_tree([e]), 1.0).logprobs_BA[0]
        for i in range(len(e.conversations[0].places)):
            loss, tokens = loss - advantage * logprobs[i], tokens + 1
    gradients = torch.autograd.grad(loss / tokens, list(module.policy.trainable.values()))
    before = [p.detach().clone() for p in module.policy.trainable.values()]
    fitted = train(module, lambda: cut(module, found, 30))
    for p, was, gradient in zip(module.policy.trainable.values(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), was - 0.1 * gradient, rtol=0, atol=1e-6 * float(gradient.abs().max()))
    numbers = {name: float(value) for name, value in fitted.callback_metrics.items()}
    assert numbers["train/logprob_gap"] < 1e-6 and numbers["train/clip_fraction"] == 0
    values = [(totals[b] - sum(totals[j] for j in range(9) if j // 3 == b // 3 and j != b) / 2) for b in range(9)]
    lengths = [len(e.conversations[0].places) for e in found.episodes]
    mean = sum(v * n for v, n in zip(values, lengths, strict=True)) / sum(lengths)
    assert numbers["train/policy_loss"] == pytest.approx(-mean, abs=1e-5)  # at ratio 1 the loss is minus the mean


def test_a_kl_in_the_loss_adds_the_gradient_of_the_mean_k3(folder: Path):
    module = made(GRPO, folder, kl=KL(loss=0.5))
    found = collected(module)
    found = replace(found, rewards=tuple(TurnRewards.of({"r": [0.0] * len(e.turns)}) for e in found.episodes))
    module.keep_reference()
    module.reference = {n: p * 1.05 for n, p in module.reference.items()}
    k3, tokens = torch.zeros((), dtype=torch.float64), 0
    for e in found.episodes:
        with module.policy.using(module.reference), torch.no_grad():
            reference = module.policy.score(token_tree([e]), 1.0).logprobs_BA[0]
        d = module.policy.score(token_tree([e]), 1.0).logprobs_BA[0] - reference
        k3, tokens = k3 + ((-d).exp() - 1 + d).sum(), tokens + len(d)
    gradients = torch.autograd.grad(0.5 * k3 / tokens, list(module.policy.trainable.values()))
    before = [p.detach().clone() for p in module.policy.trainable.values()]
    train(module, lambda: cut(module, found, 30))
    for p, was, gradient in zip(module.policy.trainable.values(), before, gradients, strict=True):
        assert gradient.abs().max() > 0
        torch.testing.assert_close(p.detach(), was - 0.1 * gradient, rtol=0, atol=1e-5 * float(gradient.abs().max()))


def test_sft_is_a_step_along_the_gradient_of_the_mean_log_likelihood(folder: Path):
    module = made(SFT, folder)
    found = collected(module)
    logprobs = [module.policy.score(token_tree([e]), 1.0).logprobs_BA[0] for e in found.episodes]
    nll = -torch.cat(logprobs).mean()
    gradients = torch.autograd.grad(nll, list(module.policy.trainable.values()))
    before = [p.detach().clone() for p in module.policy.trainable.values()]
    fitted = train(module, lambda: cut(module, found, 30, version=-1))
    for p, was, gradient in zip(module.policy.trainable.values(), before, gradients, strict=True):
        torch.testing.assert_close(p.detach(), was - 0.1 * gradient, rtol=0, atol=1e-6 * float(gradient.abs().max()))
    assert float(fitted.callback_metrics["train/nll"]) == pytest.approx(float(nll.detach()), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_episodes_gives_every_weight_a_gradient_of_0(folder: Path, kind):
    module = made(kind, folder)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    data, _ = credited(played_by(collected(module), module.expected_version), module, LARGE)
    (empty,) = batches(replace(data, advantages_BA=data.advantages_BA * 0), range(9), 1, LARGE, False, True)
    assert empty.parts == ()
    grads: dict[str, Tensor | None] = {}
    module.on_before_optimizer_step = lambda _: grads.update({n: p.grad for n, p in module.named_parameters()})
    train(module, lambda: empty)
    assert set(grads) == set(before)
    for name, p in module.named_parameters():
        gradient = grads[name]
        assert gradient is not None and gradient.eq(0).all(), name  # else other ranks would wait for it
        assert torch.equal(p, before[name])


# the critic


def test_the_critic_begins_at_0_everywhere_and_has_its_own_learning_rate(folder: Path):
    module = made(PPO, folder, critic_lr=0.25)
    tree = token_tree(list(collected(module).episodes))
    own, reference, values, after = module.assess(tree)
    assert values.eq(0).all() and after.eq(0).all() and values.shape == reference.shape == own.shape
    groups = module.configure_optimizers().param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.25]
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in module.value_head.parameters()}
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in module.parameters()}


@pytest.mark.parametrize("share", [False, True])
def test_the_critics_gradient_reaches_the_policy_only_where_the_trunk_is_shared(folder: Path, share: bool):
    module = made(PPO, folder, share_trunk=share)
    torch.nn.init.ones_(module.value_head.outer.weight)
    values, _ = module.values(module.policy.score(token_tree(forest(0, 3)), 1.0))
    values.sum().backward()
    assert all(p.grad is not None for p in module.value_head.parameters())
    assert any(p.grad is not None for p in module.policy.parameters()) is share


@pytest.mark.parametrize("bootstrap", [False, True])
def test_only_an_episode_cut_after_a_played_action_gets_the_value_of_what_follows_and_only_if_asked_for(
    folder: Path, bootstrap: bool
):
    module = made(PPO, folder, bootstrap_truncated=bootstrap, gamma=0.5, lam=0.5)
    torch.nn.init.constant_(module.value_head.outer.bias, 8.0)  # the value of everything
    ends = [stop for stop in StopReason if not stop.is_failure]
    episodes = tuple(episode([([1, 2], [3, b])], stop=stop) for b, stop in enumerate(ends))
    rewards = tuple(TurnRewards.of({"r": [1.0]}) for _ in ends)
    data, _ = credited(Iteration((EpisodeGroup(episodes[0].task, episodes),), rewards), module, 5)
    # two tokens, the reward 1 on the second, every value 8, gamma and lambda 1/2
    # nothing follows: delta_2 = 1 - 8 = -7         return_2 = 1    A_1 = .5 * 8 - 8 + .25 * -7 = -5.75   return_1 = 2.25
    # 8 follows:       delta_2 = 1 + .5 * 8 - 8 = -3   return_2 = 5    A_1 = -4 + .25 * -3 = -4.75         return_1 = 3.25
    over, goes_on = [2.25, 1.0], [3.25, 5.0]
    cut = {StopReason.TRUNCATED, StopReason.CONTEXT_LIMIT} if bootstrap else set()
    assert StopReason.UNFINISHED_ACTION in ends
    assert data.returns_BA.tolist() == [goes_on if stop in cut else over for stop in ends]
