"""One optimizer step out of parts: the gradients of the whole, the memory of one part."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.batch import packed
from lit_agents.algorithm.grpo import GRPO
from lit_agents.algorithm.micro_batches import refuse_skipped, total_loss
from lit_agents.algorithm.token_tree import token_tree
from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from lit_agents.types import Episode, Minibatch, TokenTree
from tests.algorithm.hand_fed import LARGE, SGD, Feed, collected, cut
from tests.algorithm.trainers import QUIET, trainer
from tests.rollout.handmade import forest

pytestmark = QUIET


# by hand


def squares(first: nn.Parameter, second: nn.Parameter, part: float) -> Tensor:
    """Depends on the second parameter for positive parts alone."""
    return part * first**2 + (second**3 if part > 0 else 0.0)


def test_losses_and_gradients_are_sums_over_the_parts():
    first, second, third = (nn.Parameter(torch.tensor(x)) for x in (3.0, 2.0, 1.0))
    loss = total_loss(partial(squares, first, second), [1.0, -4.0, 0.5], [first, second, third])
    assert loss.item() == -2.5 * 9 + 2 * 8
    assert first.grad is second.grad is None  # until somebody asks
    (2 * loss).backward()
    assert first.grad.item() == 2 * -2.5 * 2 * 3 and second.grad.item() == 2 * 2 * 3 * 4
    assert third.grad.item() == 0


def test_without_parts_loss_and_gradients_are_0():
    p = nn.Parameter(torch.ones(2))
    loss = total_loss(lambda part: part, [], [p])
    loss.backward()
    assert loss.item() == 0 and p.grad.tolist() == [0, 0]


def test_parameters_that_share_a_gradient_do_not_add_to_each_others():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    total_loss(lambda part: part * (first + second).sum(), [1.0, 2.0], [first, second]).backward()
    assert first.grad.tolist() == second.grad.tolist() == [3, 3]


def test_a_graph_is_gone_before_the_next_part():
    p, alive = nn.Parameter(torch.ones(3)), list[Any]()

    def loss(part: int) -> Tensor:
        assert all(ref() is None for ref in alive)
        inner = (p * part).exp()
        alive.append(weakref.ref(inner))
        return inner.sum()

    total_loss(loss, [1, 2, 3], [p])
    assert len(alive) == 3


def test_what_would_vanish_in_half_precision_is_scaled_before_it_is_differentiated():
    p = nn.Parameter(torch.ones(4))

    def loss(part: float) -> Tensor:
        return (p.half() * torch.tensor(1e-5).half()).float().sum() * part

    for scale, expected in ((1.0, 0.0), (2.0**16, 3e-10 * 2**16)):
        p.grad = None
        (scale * total_loss(loss, [1e-5, 2e-5], [p], scale)).backward()
        assert p.grad.tolist() == pytest.approx([expected] * 4, rel=1e-2)
    p.grad = None
    total_loss(loss, [1e-5, 2e-5], [p], 2.0**16).backward()  # by somebody who does not scale
    assert p.grad.tolist() == pytest.approx([3e-10] * 4, rel=1e-2)


def test_what_was_computed_without_autocast_is_differentiated_without_it():
    torch.manual_seed(0)
    x, weight, head = torch.randn(8, 16), nn.Parameter(torch.randn(16, 16)), torch.randn(16, 4)

    def loss(part: float) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return ((x @ weight).tanh() @ head).square().sum() * part

    loss(1.0).backward()
    expected, weight.grad = weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        found = total_loss(loss, [1.0], [weight])
    found.backward()
    assert torch.equal(weight.grad, expected)


# with a model


def gradients(policy: CausalLMPolicy, trees: list[TokenTree]) -> dict[str, Tensor]:
    """Of the sum of all action tokens' weighted log-probabilities."""

    def loss(tree: TokenTree) -> Tensor:
        scores = policy.score(tree, 1.0)
        return (scores.logprobs_BA * torch.cos(torch.arange(scores.logprobs_BA.shape[1]))).sum()

    policy.zero_grad()
    total_loss(loss, trees, list(policy.trainable.values())).backward()
    return {name: p.grad.clone() for name, p in policy.trainable.items()}


def plain(policy: CausalLMPolicy, episodes: list[Episode]) -> dict[str, Tensor]:
    """The same by plain differentiation, every conversation alone and in full."""
    policy.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for e in episodes:
        scores = policy.score(token_tree([e]), 1.0)
        total = total + (scores.logprobs_BA * torch.cos(torch.arange(scores.logprobs_BA.shape[1]))).sum()
    total.backward()
    return {name: p.grad.clone() for name, p in policy.trainable.items()}


def norm(self: LlamaRMSNorm, hidden: Tensor) -> Tensor:
    """In float64 throughout; transformers' own goes through float32."""
    return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_one_large_part_and_of_every_conversation_alone(
    folder: Path, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)
    policy = CausalLMPolicy(str(folder), dtype="float64", gradient_checkpointing=checkpointing)
    policy.load()
    episodes = [e for g in range(3) for e in forest(g, episodes=4, vocabulary=200)]
    groups = [b // 4 for b in range(12)]
    expected = plain(policy, episodes)
    numbers = set()
    for budget in (LARGE, 60, 30, 1):
        runs = packed(episodes, groups, budget)
        numbers.add(len(runs))
        found = gradients(policy, [token_tree([episodes[b] for b in run]) for run in runs])
        for name, gradient in expected.items():
            assert float((found[name] - gradient).norm() / gradient.norm()) < 1e-9, name
    assert numbers > {1, 12}


class Kept:
    """Bytes of tensors that are kept for a backward pass and still alive: now, and at most so far."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def pack(self, tensor: Tensor) -> Tensor:
        copy = tensor.detach()
        self.now += copy.nbytes
        self.most = max(self.most, self.now)
        weakref.finalize(copy, self.gone, copy.nbytes)
        return copy

    def gone(self, size: int) -> None:
        self.now -= size


def test_activations_do_not_grow_with_the_number_of_parts(folder: Path):
    policy = CausalLMPolicy(str(folder), lora=LoRA(rank=2))
    policy.load()
    tree = token_tree(forest(0, episodes=4, vocabulary=200))
    most = []
    for trees in ([tree], [tree] * 6):
        kept = Kept()
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
            gradients(policy, trees)
        most.append(kept.most)
    assert most[0] > 100_000 and most[1] == most[0]


# through a Trainer


def moved(folder: Path, budget: int, **settings: Any) -> dict[str, Tensor]:
    module = GRPO(CausalLMPolicy(str(folder)), SGD)
    module.configure_model()
    found = collected(module)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    run(module, cut(module, found, budget), **settings)
    return {n: p.detach() - before[n] for n, p in module.named_parameters()}


def run(module: AgentModule, minibatch: Minibatch, **settings: Any) -> None:
    loader = DataLoader(Feed(lambda: minibatch), batch_size=None)
    trainer(limit_val_batches=0, **settings).fit(module, loader, loader)


def test_a_gradient_scaler_and_clipping_see_the_gradients_of_the_whole_step(folder: Path):
    plain = moved(folder, LARGE, gradient_clip_val=0.01)
    assert sum(float((step / 0.1).square().sum()) for step in plain.values()) == pytest.approx(0.01**2, rel=1e-3)
    for budget in (LARGE, 20):
        scaler = torch.amp.GradScaler("cpu")
        scaled = moved(folder, budget, gradient_clip_val=0.01, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
        assert scaler.get_scale() == 2.0**16
        for name, step in plain.items():
            assert float((scaled[name] - step).norm()) < 0.05 * float(step.norm()) + 1e-7, name


def test_steps_over_several_minibatches_are_refused_wherever_they_are_asked_for(folder: Path):
    module = GRPO(CausalLMPolicy(str(folder), dtype="float64"), SGD)
    module.configure_model()
    minibatch = cut(module, collected(module))
    for settings in ({"accumulate_grad_batches": 2}, {"callbacks": [GradientAccumulationScheduler({0: 2})]}):
        with pytest.raises(BadInput, match=r"trainer\.accumulate_grad_batches: is 2.*micro_batch_tokens"):
            run(module, minibatch, **settings)


@pytest.mark.parametrize("settings", [{"limit_train_batches": 1}, {"overfit_batches": 1}, {"fast_dev_run": True}])
def test_what_was_collected_is_trained_on(settings: dict[str, Any]):
    refuse_skipped(Trainer(logger=False, limit_train_batches=1.0).limit_train_batches)
    refuse_skipped(Trainer(logger=False).limit_train_batches)
    with pytest.raises(BadInput, match=r"trainer\.limit_train_batches: with 1 minibatches"):
        refuse_skipped(Trainer(logger=False, **settings).limit_train_batches)
