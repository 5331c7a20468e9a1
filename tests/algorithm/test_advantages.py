"""Advantages, each against numbers worked by hand and against plain loops over the padded (B, T) layout."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch
from torch import Tensor

from lit_agents.algorithm.advantages import (
    generalised,
    group_normalised,
    leave_one_out,
    returns_to_go,
    whitened,
    without_signal,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64, a few dozen additions


def ragged(seed: int, episodes: int = 5) -> tuple[list[list[int]], Tensor, Tensor]:
    """Random padded rows as lists of 0 and 1 over all tokens, and mask and rewards of action tokens alone."""
    rng = random.Random(seed)
    rows: list[list[int]] = []
    for _ in range(episodes):
        row: list[int] = []
        for _ in range(rng.randint(1, 4)):
            row += [1] * rng.randint(1, 4) + [0] * rng.randint(0, 3)
        rows.append(row)
    width = max(map(sum, rows))
    mask_BA = torch.tensor([[a < sum(row) for a in range(width)] for row in rows])
    rewards_BA = (
        torch.randn(mask_BA.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * mask_BA
    )
    return rows, mask_BA, rewards_BA


def spread(row: list[int], column_A: Tensor) -> list[float]:
    """Values of action tokens at their places among all tokens; 0 on observations."""
    values = iter(column_A.tolist())
    return [next(values) if acting else 0.0 for acting in row]


def gathered(row: list[int], values_T: list[float], width: int) -> list[float]:
    kept = [v for v, acting in zip(values_T, row, strict=True) if acting]
    return kept + [0.0] * (width - len(kept))


def slow_gae(
    row: list[int], reward_T: list[float], value_T: list[float], after: float, gamma: float, lam: float
) -> list[float]:
    """docs/formulas.md, 3 read literally, recursively, at token places: A_i = delta_i + gamma lam A_{i+1}."""
    places = [t for t, acting in enumerate(row) if acting]

    def advantage(i: int) -> float:
        if i == len(places):
            return 0.0
        following = value_T[places[i + 1]] if i + 1 < len(places) else after
        delta = reward_T[places[i]] + gamma * following - value_T[places[i]]
        return delta + gamma * lam * advantage(i + 1)

    out = [0.0] * len(row)
    for i, place in enumerate(places):
        out[place] = advantage(i)
    return out


def test_gae_of_two_turns_is_what_a_hand_finds():
    # turn 1 has the tokens a, b (reward 1 on b), turn 2 has the token c (reward 2); gamma 1/2, lambda 1/2
    # delta_c = 2 + 0 - 3 = -1            A_c = -1                     return  2
    # delta_b = 1 + .5 * 3 - 2 = .5       A_b = .5 + .25 * -1 = .25    return  2.25
    # delta_a = 0 + .5 * 2 - 4 = -3       A_a = -3 + .25 * .25         return  1.0625
    mask_BA = torch.tensor([[True, True, True, False]])
    rewards_BA, values_BA = torch.tensor([[0.0, 1, 2, 0]]), torch.tensor([[4.0, 2, 3, 9]])
    advantages, returns = generalised(rewards_BA, values_BA, torch.zeros(1), mask_BA, 0.5, 0.5)
    assert advantages.tolist() == [[-2.9375, 0.25, -1.0, 0.0]]
    assert returns.tolist() == [[1.0625, 2.25, 2.0, 0.0]]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 1.0), (1.0, 0.8), (0.93, 0.71), (0.5, 0.0)])
@pytest.mark.parametrize("seed", range(5))
def test_gae_equals_its_recursive_definition_on_ragged_batches(seed: int, gamma: float, lam: float):
    rows, mask_BA, rewards_BA = ragged(seed)
    generator = torch.Generator().manual_seed(seed + 100)
    values_BA = torch.randn(mask_BA.shape, dtype=torch.float64, generator=generator)  # padding too holds numbers
    after_B = torch.randn(len(rows), dtype=torch.float64, generator=generator)
    advantages, returns = generalised(rewards_BA, values_BA, after_B, mask_BA, gamma, lam)
    for b, row in enumerate(rows):
        value_T = spread(row, values_BA[b])
        slow = slow_gae(row, spread(row, rewards_BA[b]), value_T, float(after_B[b]), gamma, lam)
        expected = torch.tensor(gathered(row, slow, mask_BA.shape[1]), dtype=torch.float64)
        torch.testing.assert_close(advantages[b], expected, **EXACT)
        sums = [a + v for a, v in zip(slow, value_T, strict=True)]
        expected = torch.tensor(gathered(row, sums, mask_BA.shape[1]), dtype=torch.float64)
        torch.testing.assert_close(returns[b], expected, **EXACT)


def test_gae_bootstraps_from_what_follows_only_where_it_is_told_to():
    mask_BA = torch.tensor([[True, True], [True, True]])
    rewards_BA, values_BA = torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    advantages, _ = generalised(rewards_BA, values_BA, torch.tensor([0.0, 10.0]), mask_BA, 0.5, 1.0)
    # ended: A_2 = -2, A_1 = .5 * 2 - 1 + .5 * -2 = -1; cut: A_2 = .5 * 10 - 2 = 3, A_1 = 0 + .5 * 3 = 1.5
    assert advantages.tolist() == [[-1.0, -2.0], [1.5, 3.0]]


def test_gae_without_discount_is_return_minus_value():
    _, mask_BA, rewards_BA = ragged(7)
    values_BA = torch.randn(mask_BA.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    advantages, returns = generalised(rewards_BA, values_BA, torch.zeros(5, dtype=torch.float64), mask_BA, 1.0, 1.0)
    torch.testing.assert_close(returns, returns_to_go(rewards_BA, mask_BA, 1.0), **EXACT)
    torch.testing.assert_close(advantages, (returns - values_BA) * mask_BA, **EXACT)


def test_every_action_token_of_two_turns_has_the_final_reward_as_its_return():
    # tokens: action action | observation observation observation | action action; the reward is on the last one (D2)
    row, reward_T = [1, 1, 0, 0, 0, 1, 1], [0.0] * 6 + [1.0]
    rewards_BA = torch.tensor([gathered(row, reward_T, 4)])
    returns_BA = returns_to_go(rewards_BA, torch.ones(1, 4, dtype=torch.bool), 1.0)
    assert returns_BA.tolist() == [[1.0, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_returns_to_go_are_discounted_sums_over_later_action_tokens(seed: int, gamma: float):
    rows, mask_BA, rewards_BA = ragged(seed)
    found = returns_to_go(rewards_BA, mask_BA, gamma)
    for b, row in enumerate(rows):
        reward_T = spread(row, rewards_BA[b])
        out = [0.0] * len(row)
        for t, acting in enumerate(row):
            if acting:
                later = [u for u in range(t, len(row)) if row[u]]
                out[t] = sum(gamma**i * reward_T[u] for i, u in enumerate(later))
        expected = torch.tensor(gathered(row, out, mask_BA.shape[1]), dtype=torch.float64)
        torch.testing.assert_close(found[b], expected, **EXACT)


def test_whitened_values_have_mean_0_and_variance_1_over_action_tokens_alone():
    _, mask_BA, x_BA = ragged(3)
    x_BA = torch.where(mask_BA, x_BA * 5 + 3, 1e6)  # what stands on padding must not matter
    white = whitened(x_BA, mask_BA)
    tokens = x_BA[mask_BA].tolist()
    mean, deviation = statistics.fmean(tokens), statistics.pstdev(tokens)
    expected = [(x - mean) / (deviation + 1e-8) for x in tokens]
    torch.testing.assert_close(white[mask_BA], torch.tensor(expected, dtype=torch.float64), **EXACT)
    assert white[~mask_BA].eq(0).all()
    assert white[mask_BA].mean().abs() < 1e-12 and abs(white[mask_BA].var(correction=0) - 1) < 1e-7


@pytest.mark.parametrize("value", [0.5, -0.1, -0.4, 0.9, 1e-3, 1e4])  # all but the first have no exact mean in float32
def test_whitening_of_equal_values_gives_0(value: float):
    mask_BA = torch.ones(40, 51, dtype=torch.bool)
    mask_BA[3:9, 20:] = False
    assert whitened(torch.full((40, 51), value), mask_BA).abs().max() < 1e-4


@pytest.mark.parametrize("value", [0.5, -0.1, -0.4, 0.9, 1e4 / 3])
@pytest.mark.parametrize("size", [2, 3, 4, 7, 8])
def test_groups_without_signal_give_exactly_0_however_they_round(value: float, size: int):
    turns = torch.full((size,), value) / 3
    returns_B = turns + turns + turns  # and one that was added up in another order
    returns_B[0] = value
    group_B = torch.zeros(size, dtype=torch.long)
    assert without_signal(returns_B, group_B).all()
    assert leave_one_out(returns_B, group_B).tolist() == [0.0] * size
    for divide in (False, True):
        assert group_normalised(returns_B, group_B, divide).tolist() == [0.0] * size


def test_whitening_on_two_ranks_equals_whitening_the_whole_batch():
    _, mask_BA, x_BA = ragged(11, episodes=6)
    halves = [(x_BA[:2], mask_BA[:2]), (x_BA[2:], mask_BA[2:])]
    contributions: list[list[Tensor]] = [[], []]

    def alone(rank: int):
        """Each rank runs up to its next reduction with the sums known so far; repeated until all are known."""
        calls = iter(range(100))

        def reduce(x: Tensor) -> Tensor:
            call = next(calls)
            if call < len(known):
                return known[call]
            contributions[rank].append(x)
            return x

        return reduce

    known: list[Tensor] = []
    for _ in range(3):  # count, sum, sum of squares
        contributions = [[], []]
        for rank, half in enumerate(halves):
            whitened(*half, alone(rank))
        known.append(contributions[0][0] + contributions[1][0])
    parts = [whitened(*half, alone(rank)) for rank, half in enumerate(halves)]
    torch.testing.assert_close(torch.cat(parts), whitened(x_BA, mask_BA), **EXACT)
    assert not torch.allclose(parts[0], whitened(*halves[0]))


def test_leave_one_out_is_what_a_hand_finds():
    # 4 - (1 + 1) / 2 = 3;  1 - (4 + 1) / 2 = -1.5;  and in a group of two, each minus the other
    returns_B, group_B = torch.tensor([4.0, 1, 1, 5, 2]), torch.tensor([0, 0, 0, 1, 1])
    assert leave_one_out(returns_B, group_B).tolist() == [3.0, -1.5, -1.5, 3.0, -3.0]


def groups_of_different_sizes(seed: int) -> tuple[Tensor, Tensor, list[list[int]]]:
    rng = random.Random(seed)
    numbers = [g for g in range(4) for _ in range(rng.randint(2, 6))]
    rng.shuffle(numbers)  # members need not be neighbours
    returns_B = torch.tensor([rng.gauss(0, 3) for _ in numbers], dtype=torch.float64)
    return returns_B, torch.tensor(numbers), [[b for b, n in enumerate(numbers) if n == g] for g in range(4)]


@pytest.mark.parametrize("seed", range(4))
def test_group_advantages_equal_plain_loops_over_groups_of_different_sizes(seed: int):
    returns_B, group_B, groups = groups_of_different_sizes(seed)
    rloo, grpo, plain = [0.0] * len(group_B), [0.0] * len(group_B), [0.0] * len(group_B)
    for members in groups:
        values = [float(returns_B[b]) for b in members]
        mean, deviation = statistics.fmean(values), statistics.stdev(values)  # G - 1 in the denominator
        for b in members:
            others = [float(returns_B[j]) for j in members if j != b]
            rloo[b] = float(returns_B[b]) - sum(others) / len(others)
            plain[b] = float(returns_B[b]) - mean
            grpo[b] = plain[b] / (deviation + 1e-6)
    for found, expected in (
        (leave_one_out(returns_B, group_B), rloo),
        (group_normalised(returns_B, group_B, divide_by_std=False), plain),
        (group_normalised(returns_B, group_B, divide_by_std=True), grpo),
    ):
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), **EXACT)


def test_the_standard_deviation_of_a_group_has_one_less_than_its_size_in_the_denominator():
    # 1 and 0: mean 1/2, deviations +-1/2, variance (1/4 + 1/4) / (2 - 1) = 1/2
    found = group_normalised(torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0, 0]), True)
    unit = 0.5 / (math.sqrt(0.5) + 1e-6)
    torch.testing.assert_close(found, torch.tensor([unit, -unit], dtype=torch.float64), **EXACT)


def test_grpo_without_std_is_rloo_times_g_minus_1_over_g():
    returns_B, group_B, groups = groups_of_different_sizes(9)
    sizes_B = torch.tensor([len(groups[g]) for g in group_B.tolist()], dtype=torch.float64)
    expected = leave_one_out(returns_B, group_B) * (sizes_B - 1) / sizes_B
    torch.testing.assert_close(group_normalised(returns_B, group_B, False), expected, **EXACT)


@pytest.mark.parametrize("divide_by_std", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_group_with_equal_rewards_gets_exactly_0(divide_by_std: bool, dtype: torch.dtype):
    for size in (2, 3, 7, 11):
        returns_B = torch.full((size + 2,), 0.1, dtype=dtype)  # 0.1 is no sum of powers of two, so its mean is not 0.1
        returns_B[-1] = 1.0
        group_B = torch.tensor([0] * size + [1, 1])
        found = group_normalised(returns_B, group_B, divide_by_std)
        assert found[:size].tolist() == [0.0] * size
        assert found[size:].ne(0).all()


def test_groups_without_signal_are_those_whose_members_are_all_equal():
    returns_B, group_B = torch.tensor([1.0, 1, 0, 1, 0.1, 0.1, 0.1]), torch.tensor([0, 0, 1, 1, 2, 2, 2])
    assert without_signal(returns_B, group_B).tolist() == [True, False, True]


def test_a_group_of_one_is_refused():
    returns_B, group_B = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([0, 0, 1])
    for estimate in (
        leave_one_out,
        lambda r, g: group_normalised(r, g, True),
        lambda r, g: group_normalised(r, g, False),
    ):
        with pytest.raises(ValueError, match="group of one"):
            estimate(returns_B, group_B)
