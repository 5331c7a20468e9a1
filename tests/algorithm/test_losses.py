"""Losses against loops over single tokens, and their gradients against what they are the gradients of."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch
from torch import Tensor

from lit_agents.algorithm import losses

EXACT = {"rtol": 1e-12, "atol": 1e-14}


def columns(seed: int, spread: float = 0.6) -> dict[str, Tensor]:
    """Random float64 columns of five ragged rows, probability ratios on both sides of every clip."""
    rng = random.Random(seed)
    mask_BA = torch.tensor([[a < n for a in range(9)] for n in (9, 1, 4, 6, 2)])

    def column(scale: float) -> Tensor:
        values = [[rng.gauss(0, scale) for _ in range(9)] for _ in range(5)]
        return torch.where(mask_BA, torch.tensor(values, dtype=torch.float64), 0.0)

    old = column(1) - 3
    return {
        "mask": mask_BA,
        "weights": losses.token_weights(mask_BA, per_episode=False).double(),
        "old": old * mask_BA,
        "new": (old + column(spread)) * mask_BA,
        "advantages": column(1),
    }


def slow_surrogate(c: dict[str, Tensor], clip: float, dual: float | None) -> tuple[float, float]:
    """docs/formulas.md, 3, one token at a time; and the share of tokens where a clip changed the loss."""
    total, acted = 0.0, 0.0
    for b in range(5):
        for a in range(9):
            if not c["mask"][b, a]:
                continue
            weight, advantage = float(c["weights"][b, a]), float(c["advantages"][b, a])
            ratio = math.exp(float(c["new"][b, a]) - float(c["old"][b, a]))
            loss = max(-advantage * ratio, -advantage * min(max(ratio, 1 - clip), 1 + clip))
            if dual is not None and advantage < 0:
                loss = min(loss, -advantage * dual)
            total += weight * loss
            acted += weight * (loss != -advantage * ratio)
    return total, acted


@pytest.mark.parametrize("dual", [None, 1.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_clipped_surrogate_equals_a_loop_over_tokens(seed: int, dual: float | None):
    c = columns(seed)
    loss, share = losses.clipped_surrogate(c["new"], c["old"], c["advantages"], c["weights"], 0.2, dual)
    expected, acted = slow_surrogate(c, 0.2, dual)
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    assert float(share) == pytest.approx(acted, rel=1e-12) and 0 < acted < 1


def one(ratio: float, advantage: float, dual: float | None = 3.0) -> tuple[float, float, float]:
    """Loss, clip share and gradient by the log-probability of a batch of one token."""
    new = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    old, weights = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    loss, share = losses.clipped_surrogate(new, old, torch.full_like(old, advantage), weights, 0.2, dual)
    loss.backward()
    return float(loss.detach()), float(share), float(new.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "dual", "loss", "share", "gradient"),
    [
        (1.1, 2.0, 3.0, -2.2, 0, -2.2),  # inside the range: -A r, whose gradient by log p is -A r too
        (1.5, 2.0, 3.0, -2.4, 1, 0.0),  # already more likely than asked for: held at -A 1.2
        (0.5, 2.0, 3.0, -1.0, 0, -1.0),  # good but unlikely: no clip in this direction
        (0.5, -2.0, 3.0, 1.6, 1, 0.0),  # bad and already rare: held at -A 0.8
        (1.5, -2.0, 3.0, 3.0, 0, 3.0),  # bad and likely: pulled with its full ratio
        (5.0, -2.0, 3.0, 6.0, 1, 0.0),  # bad and very likely: at most dual_clip times
        (5.0, -2.0, None, 10.0, 0, 10.0),
    ],
)
def test_each_region_of_the_clip_is_what_a_hand_finds(ratio, advantage, dual, loss, share, gradient):
    assert one(ratio, advantage, dual) == pytest.approx((loss, share, gradient), rel=1e-12, abs=1e-12)


def test_the_sampler_is_corrected_for_by_its_ratio_up_to_the_cap():
    ratios = torch.tensor([[0.5, 1.0, 1.9, 2.0, 7.0]], dtype=torch.float64)
    old = torch.full_like(ratios, -3.0)
    own = (old + ratios.log()).requires_grad_()
    factors = losses.truncated_ratio(own, old, 2.0)
    torch.testing.assert_close(factors, torch.tensor([[0.5, 1.0, 1.9, 2.0, 2.0]], dtype=torch.float64), **EXACT)
    new = own.detach().clone().requires_grad_()
    advantages, weights = torch.tensor([[1.0, -2.0, 3.0, 1.0, -1.0]]).double(), torch.full_like(old, 0.2)
    loss, share = losses.clipped_surrogate(new, own.detach(), advantages, weights, 0.2, 3.0, factors)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.2 * (-0.5 + 2 - 5.7 - 2 + 2), rel=1e-12) and float(share) == 0
    assert own.grad is None  # the factor is a number, not something to learn
    torch.testing.assert_close(new.grad, torch.tensor([[-0.1, 0.4, -1.14, -0.4, 0.4]], dtype=torch.float64), **EXACT)


def test_the_gradient_at_ratio_1_is_that_of_reinforce():
    c = columns(5)
    theta = torch.randn(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.randint(0, 7, (5, 9), generator=torch.Generator().manual_seed(1))

    def logprobs() -> Tensor:
        rows_BAV = torch.log_softmax(theta, dim=-1)[None].expand(5, 9, 7)
        return rows_BAV.gather(2, targets[..., None]).squeeze(2) * c["mask"]

    ours, share = losses.clipped_surrogate(logprobs(), logprobs().detach(), c["advantages"], c["weights"], 0.2, 3.0)
    (found,) = torch.autograd.grad(ours, theta)
    (expected,) = torch.autograd.grad(-(c["weights"] * c["advantages"] * logprobs()).sum(), theta)
    torch.testing.assert_close(found, expected, **EXACT)
    assert float(share) == 0.0 and found.abs().max() > 0.01


def test_advantages_of_0_give_exactly_no_loss_and_no_gradient():
    c = columns(6)
    new = c["new"].clone().requires_grad_()
    loss, share = losses.clipped_surrogate(new, c["old"], torch.zeros_like(new), c["weights"], 0.2, 3.0)
    loss.backward()
    assert float(loss.detach()) == 0.0 and float(share) == 0.0 and new.grad.eq(0).all()


@pytest.mark.parametrize("clip", [None, 0.5, 0.1])
def test_the_critics_loss_equals_a_loop_over_tokens(clip: float | None):
    c = columns(7)
    values, old, returns = c["new"] + 2, c["old"] + 2, c["advantages"]
    total = 0.0
    for b in range(5):
        for a in range(9):
            value, before, target = (float(x[b, a]) for x in (values, old, returns))
            error = (value - target) ** 2
            if clip is not None:
                error = max(error, (before + min(max(value - before, -clip), clip) - target) ** 2)
            total += float(c["weights"][b, a]) * 0.5 * error
    found = losses.clipped_value(values, old, returns, c["weights"], clip)
    assert float(found) == pytest.approx(total, rel=1e-12)


def test_a_value_that_already_moved_past_its_clip_towards_the_return_gets_no_gradient():
    def gradient(value: float, target: float) -> float:
        new = torch.tensor([[value]], requires_grad=True)
        losses.clipped_value(new, torch.zeros(1, 1), torch.tensor([[target]]), torch.ones(1, 1), 0.5).backward()
        return float(new.grad)

    assert gradient(1.0, 2.0) == 0.0  # held at 0.5: the worse prediction counts, and it does not move
    assert gradient(-1.0, 2.0) == -3.0  # moved away: value - return
    assert gradient(0.25, 2.0) == -1.75


POLICY, REFERENCE = [0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.4, 0.1]


def exact_kl(p: list[float], q: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))


def test_both_kl_estimates_are_unbiased_and_k3_is_never_negative():
    logp, logq = (torch.tensor([p], dtype=torch.float64).log() for p in (POLICY, REFERENCE))
    k1, k3 = losses.kl_k1(logp, logq)[0].tolist(), losses.kl_k3(logp, logq)[0].tolist()
    expected = exact_kl(POLICY, REFERENCE)
    for estimates in (k1, k3):
        assert sum(p * k for p, k in zip(POLICY, estimates, strict=True)) == pytest.approx(expected, rel=1e-12)
    assert min(k1) < 0 < min(k3)
    variances = [sum(p * (k - expected) ** 2 for p, k in zip(POLICY, ks, strict=True)) for ks in (k1, k3)]
    assert variances[1] < variances[0]
    differences = [math.log(p) - math.log(q) for p, q in zip(POLICY, REFERENCE, strict=True)]
    assert k1 == pytest.approx(differences, rel=1e-12)
    by_hand = [math.exp(-d) - 1 + d for d in differences]
    assert k3 == pytest.approx(by_hand, rel=1e-12)
    assert losses.kl_k3(logp, logp).eq(0).all() and losses.kl_k1(logp, logp).eq(0).all()


def test_k1_as_a_loss_teaches_nothing_and_k3_follows_the_reverse_kl():
    # docs/formulas.md, 2: in expectation over the policy's own actions, grad k1 = 0 and grad k3 = grad KL(reference || policy)
    logits = torch.tensor(POLICY, dtype=torch.float64).log().requires_grad_()
    logq = torch.tensor(REFERENCE, dtype=torch.float64).log()

    def expected_gradient(estimate) -> Tensor:
        weights = torch.tensor(POLICY, dtype=torch.float64)
        return torch.autograd.grad((weights * estimate(torch.log_softmax(logits, 0), logq)).sum(), logits)[0]

    assert expected_gradient(losses.kl_k1).abs().max() < 1e-15
    reverse = (logq.exp() * (logq - torch.log_softmax(logits, 0))).sum()
    (expected,) = torch.autograd.grad(reverse, logits)
    torch.testing.assert_close(expected_gradient(losses.kl_k3), expected, **EXACT)
    torch.testing.assert_close(expected, torch.tensor(POLICY, dtype=torch.float64) - logq.exp(), **EXACT)


def test_token_weights_are_equal_per_token_or_equal_per_episode():
    mask_BA = torch.tensor([[True, True, True, True], [True, False, False, False]])
    fifth = losses.token_weights(mask_BA, per_episode=False)
    torch.testing.assert_close(fifth, torch.tensor([[0.2] * 4, [0.2, 0, 0, 0]]))
    half = losses.token_weights(mask_BA, per_episode=True)
    assert half.tolist() == [[0.125] * 4, [0.5, 0, 0, 0]]
    assert losses.token_weights(torch.zeros(0, 3, dtype=torch.bool), per_episode=True).shape == (0, 3)
    assert losses.token_weights(torch.zeros(1, 3, dtype=torch.bool), per_episode=False).tolist() == [[0.0, 0.0, 0.0]]


def test_the_loss_of_demonstrations_is_their_mean_negative_log_likelihood():
    c = columns(8)
    found = losses.negative_log_likelihood(c["new"], c["weights"])
    tokens = [-float(c["new"][b, a]) for b in range(5) for a in range(9) if c["mask"][b, a]]
    assert float(found) == pytest.approx(statistics.fmean(tokens), rel=1e-7)  # the weights are float32


def test_explained_variance_is_1_for_a_perfect_critic_0_for_a_constant_and_negative_for_a_bad_one():
    c = columns(9)
    returns, mask = c["advantages"] + 5, c["mask"]
    assert float(losses.explained_variance(returns, returns, mask)) == 1.0
    assert float(losses.explained_variance(torch.full_like(returns, 3.0), returns, mask)) == pytest.approx(0, abs=1e-12)
    assert float(losses.explained_variance(-returns, returns, mask)) == pytest.approx(1 - 4, rel=1e-12)
    equal = torch.full_like(returns, -0.4)
    assert math.isnan(float(losses.explained_variance(returns, equal, mask)))  # there is nothing to explain
    values = c["new"]
    errors = [float(returns[b, a] - values[b, a]) for b in range(5) for a in range(9) if mask[b, a]]
    targets = [float(returns[b, a]) for b in range(5) for a in range(9) if mask[b, a]]
    expected = 1 - statistics.pvariance(errors) / statistics.pvariance(targets)
    assert float(losses.explained_variance(values, returns, mask)) == pytest.approx(expected, rel=1e-12)


def test_columns_of_different_shapes_are_refused_and_never_broadcast():
    c = columns(10)
    column, row, empty = c["advantages"][:, :1], c["advantages"][0], torch.zeros(0)
    for other in (c["old"][:, :3], column, row, torch.tensor(1.0), empty):
        for calculate in (
            lambda x: losses.clipped_surrogate(c["new"], x, c["advantages"], c["weights"], 0.2, 3.0),
            lambda x: losses.clipped_surrogate(c["new"], c["old"], x, c["weights"], 0.2, 3.0),
            lambda x: losses.clipped_surrogate(c["new"], c["old"], c["advantages"], x, 0.2, 3.0),
            lambda x: losses.clipped_value(c["new"], c["old"], x, c["weights"], None),
            lambda x: losses.clipped_value(x, c["old"], c["advantages"], c["weights"], 0.5),
            lambda x: losses.negative_log_likelihood(x, c["weights"]),
            lambda x: losses.kl_k1(c["new"], x),
            lambda x: losses.kl_k3(c["new"], x),
        ):
            with pytest.raises(ValueError, match="must have one shape"):
                calculate(other)
