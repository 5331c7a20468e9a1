"""Intervals over seeds and tasks, on data with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from lit_agents.evaluation.stats.bootstrap import difference, interval, rates, success
from lit_agents.evaluation.stats.intervals import wilson


def slow(table_ST: np.ndarray, draws: int) -> tuple[float, float]:
    """The same by drawing rows and columns one by one."""
    stream = np.random.default_rng(7)
    seeds, tasks = table_ST.shape
    means = []
    for _ in range(draws):
        rows, columns = stream.integers(0, seeds, seeds), stream.integers(0, tasks, tasks)
        means.append(np.nanmean(table_ST[np.ix_(rows, columns)]))
    return tuple(np.quantile(means, [0.025, 0.975]))


def test_it_is_the_quantiles_of_drawing_seeds_and_tasks_again():
    stream = np.random.default_rng(1)
    table_ST = stream.integers(0, 2, (4, 30)).astype(float)
    table_ST[1, 3] = np.nan
    mean, low, high = interval(table_ST)
    assert mean == pytest.approx(np.nanmean(table_ST))
    assert (low, high) == pytest.approx(slow(table_ST, 4000), abs=0.012)
    assert interval(table_ST) == (mean, low, high)  # always the same


def test_what_lies_between_seeds_is_in_it_and_what_lies_between_tasks_too():
    by_seed = np.repeat([[0.0], [1.0], [0.0], [1.0]], 50, axis=1)
    mean, low, high = interval(by_seed)
    assert (mean, low, high) == (0.5, 0.0, 1.0)  # each of four seeds drawn twice or not at all is no rare thing
    by_task = np.repeat([[0.0, 1.0] * 25], 4, axis=0)
    mean, low, high = interval(by_task)
    half = 1.96 * (0.25 / 50) ** 0.5  # fifty independent tasks, however many seeds agree on them
    assert mean == 0.5 and high - low == pytest.approx(2 * half, rel=0.08)


def test_it_covers_the_truth_about_as_often_as_it_says():
    stream, inside = np.random.default_rng(3), 0
    for _ in range(200):
        hard_T = stream.normal(0, 0.2, 40)
        table_ST = (0.5 + stream.normal(0, 0.1, (8, 1)) + hard_T + stream.normal(0, 0.3, (8, 40))).astype(float)
        _, low, high = interval(table_ST, draws=500)
        inside += low <= 0.5 <= high
    assert 0.88 <= inside / 200 <= 1.0


def test_a_rate_at_the_edge_has_wilsons_interval_over_the_tasks():
    assert success([{"a": (0, 1), "b": (0, 1)}] * 3) == (0.0, *wilson(0, 2))
    assert success([{"a": (2, 2)}]) == (1.0, *wilson(1, 1))


def test_a_rate_of_many_wins_on_few_tasks_has_an_interval_no_narrower_than_wilsons():
    lost = {f"task {i}": (0, 1) for i in range(29)}
    tallies = [{"a": (1, 1), "b": (1, 1), "c": (i, 1), **lost} for i in (0, 0, 1)]  # 7 wins on 3 of 32 tasks
    mean, low, high = success(tallies)
    assert mean == pytest.approx(7 / 96) and (low, high) == (0.0, wilson(7 / 3, 32)[1])
    won = [{task: (n - w, n) for task, (w, n) in tally.items()} for tally in tallies]
    assert success(won)[1:] == pytest.approx((1 - high, 1.0))
    mean, low, high = success([{"a": (1, 1), "b": (0, 1)}])
    assert mean == 0.5 and low == 0.0 and high == 1.0


def test_rates_are_by_seed_and_task():
    table_ST = rates([{"a": (1, 2), "b": (1, 1)}, {"b": (0, 1), "c": (0, 0)}])
    np.testing.assert_array_equal(table_ST, [[0.5, 1.0, np.nan], [np.nan, 0.0, np.nan]])
    with pytest.raises(ValueError, match="nothing"):
        interval(rates([{}]))


def test_a_difference_on_a_handful_of_tasks_is_no_surer_than_their_number_allows():
    none = [{f"t{i}": (0, 1) for i in range(64)}] * 2
    four = [{**tally, **{f"t{i}": (1, 1) for i in range(4)}} for tally in none]
    mean, low, high = difference(four, none)  # a sign-flip test has p = 2 / 2 ** 4 = .125
    assert mean == 4 / 64 and high == pytest.approx(
        0.150, abs=5e-4
    )  # Wilson's of 4 of 64: .0246 to .1500; of 0: 0 to .0566
    assert low == pytest.approx(0.0625 - (0.0379**2 + 0.0566**2) ** 0.5, abs=2e-4) and low < 0
    mean, low, high = difference(
        [{**tally, "t0": (1, 1)} for tally in none], [{**tally, "t1": (1, 1)} for tally in none]
    )
    half = ((1 / 64 - 0.0028) ** 2 + (0.0833 - 1 / 64) ** 2) ** 0.5  # of 1: .0028 to .0833
    assert mean == 0 and (low, high) == (pytest.approx(-half, abs=1e-4), pytest.approx(half, abs=1e-4))


def test_a_difference_is_paired():
    one = [{f"t{i}": (i % 2, 1) for i in range(40)}, {f"t{i}": (i % 2, 1) for i in range(40)}]
    better = [{**tally, **{f"t{i}": (1, 1) for i in range(0, 12, 2)}} for tally in one]
    mean, low, high = difference(better, one)
    assert mean == pytest.approx(6 / 40) and 0 < low < mean < high < 0.28  # unpaired it would be +-.2
    none = wilson(0, 40)[1]  # of forty tasks nobody can say that no other one differs
    assert difference(one, one) == (0.0, -none, none)
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(one, one[:1])
