"""How a token is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_agents.errors import BadInput
from lit_agents.policy.sampling import Sampling, draw, log_distribution
from lit_agents.rng import stream


class Numbers:
    """A stream that gives what it is told to."""

    def __init__(self, *values: float) -> None:
        self.values = iter(values)

    def random(self) -> float:
        return next(self.values)


def drawn(logits: list[float], sampling: Sampling, *uniforms: float) -> tuple[list[int], list[float]]:
    (pairs,) = draw(torch.tensor([logits]), sampling, [[Numbers(u) for u in uniforms]])  # type: ignore[misc]
    return [token for token, _ in pairs], [score for _, score in pairs]


def test_streams_that_share_a_row_draw_what_they_would_draw_alone():
    torch.manual_seed(0)
    logits = torch.randn(3, 7)
    together = draw(logits, Sampling(), [[stream(r, m) for m in range(r + 1)] for r in range(3)])
    alone = [[draw(logits[r : r + 1], Sampling(), [[stream(r, m)]])[0][0] for m in range(r + 1)] for r in range(3)]
    assert together == alone
    assert draw(logits, Sampling(temperature=0), [[stream(0)] * 2] * 3) == [
        [(int(row.argmax()), 0.0)] * 2 for row in logits
    ]


def test_a_token_is_drawn_where_the_distribution_function_crosses_the_random_number():
    probabilities = [0.125, 0.25, 0.0, 0.5, 0.125]  # reached: .125 .375 .375 .875 1; exact in binary
    logits = [float(np.log(p)) if p else float("-inf") for p in probabilities]
    uniforms = (0.0, 0.124, 0.126, 0.374, 0.376, 0.874, 0.876, 1 - 2**-53)
    tokens, logprobs = drawn(logits, Sampling(), *uniforms)
    assert tokens == [0, 0, 1, 1, 3, 3, 4, 4]
    assert logprobs == pytest.approx([float(np.log(probabilities[t])) for t in tokens], abs=1e-6)


def test_a_regular_grid_of_random_numbers_draws_each_token_as_often_as_it_is_likely():
    probabilities = [0.05, 0.2, 0.45, 0.3]
    grid = [(i + 0.5) / 1000 for i in range(1000)]
    tokens, _ = drawn([float(np.log(p)) for p in probabilities], Sampling(), *grid)
    assert [tokens.count(t) for t in range(4)] == [50, 200, 450, 300]


def test_a_token_of_probability_0_is_never_drawn():
    logits = [float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]
    tokens, logprobs = drawn(logits, Sampling(), 0.0, 1e-12, 0.49, 0.51, 1 - 2**-53)
    assert tokens == [1, 1, 1, 3, 3] and logprobs == pytest.approx([float(np.log(0.5))] * 5)


def test_rare_tokens_keep_their_share():
    # a token of 1/2, ten of 1e-8, one of 1/2: next to 1/2 a running sum in float32 moves in steps of 6e-8
    logits_V = torch.tensor([0.5, *[1e-8] * 10, 0.5]).log()
    uniforms = [0.5 + k * 1e-9 for k in range(-250, 250)]
    tokens, _ = drawn(logits_V.tolist(), Sampling(), *uniforms)
    assert tokens == sorted(tokens) and set(tokens) == set(range(12))
    assert all(9 <= tokens.count(t) <= 11 for t in range(1, 11))


def test_greedy_takes_the_likeliest_and_uses_no_random_number():
    (pairs,) = draw(torch.tensor([[0.0, 3.0, 1.0]]), Sampling(temperature=0), [[Numbers()]])  # type: ignore[list-item]
    assert pairs == [(1, 0.0)]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_p": 0.49}, [3]),  # the likeliest alone has 0.5
        ({"top_p": 0.51}, [1, 3]),  # the token that crosses it is kept
        ({"top_p": 0.79}, [1, 3]),  # 0.5 + 0.3
        ({"top_p": 0.81}, [0, 1, 3]),
        ({"top_p": 0.01}, [3]),
        ({"top_k": 1}, [3]),
        ({"top_k": 3}, [0, 1, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_k": 1, "top_p": 0.9}, [3]),
        ({"top_k": 3, "top_p": 0.6}, [1, 3]),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_truncation_keeps_the_likeliest_and_renormalises_them(settings: dict[str, float], kept: list[int]):
    probabilities = [0.15, 0.3, 0.05, 0.5]
    logits_BV = torch.tensor([probabilities], dtype=torch.float64).log() + 3  # a constant changes nothing
    found = log_distribution(logits_BV, Sampling(**settings)).exp()[0].tolist()  # type: ignore[arg-type]
    total = sum(probabilities[t] for t in kept)
    assert found == pytest.approx([p / total if t in kept else 0 for t, p in enumerate(probabilities)], abs=1e-12)
    grid = [(i + 0.5) / 600 for i in range(600)]
    tokens, logprobs = drawn(logits_BV[0].tolist(), Sampling(**settings), *grid)  # type: ignore[arg-type]
    assert set(tokens) == set(kept)
    assert logprobs == pytest.approx([float(np.log(probabilities[t] / total)) for t in tokens], abs=1e-6)


def test_a_stream_depends_on_its_key_alone():
    def numbers(*key: object) -> list[float]:
        return list(stream(*key).random(4))

    first = stream(1, "a", 2)
    other = stream(1, "a", 3)
    other.random(100)
    assert list(first.random(4)) == numbers(1, "a", 2)
    keys = [(1, "a", 2), (1, "a", 3), (2, "a", 1), (1, "a"), ("1a", 2), (1, "a2"), (12, "a"), ()]
    assert len({tuple(numbers(*key)) for key in keys}) == len(keys)
    assert numbers(1, "a", 2)[0] == pytest.approx(0.4, abs=0.6)


@pytest.mark.parametrize(
    "settings", [{"temperature": -0.1}, {"max_tokens": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}]
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, float]):
    with pytest.raises(BadInput, match=f"sampling.{next(iter(settings))}"):
        Sampling(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 5}])
def test_training_with_truncated_or_greedy_actions_is_refused(settings: dict[str, float]):
    with pytest.raises(BadInput, match=r"data\.sampling"):
        Sampling(**settings).check_trainable("data.sampling")  # type: ignore[arg-type]
    Sampling(temperature=0.7).check_trainable("data.sampling")


def test_a_random_number_rounded_up_to_the_total_still_draws_a_token_that_was_kept():
    # 1.0 is what a product just below the total may round to
    tokens, scores = drawn([3.0, 2.0, 1.0, 0.0, -1.0], Sampling(top_k=2), 1.0, 1.0, 1.0)
    assert tokens == [1, 1, 1] and all(score > -2 for score in scores)
