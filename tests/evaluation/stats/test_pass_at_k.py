"""Rates over several episodes per task, and paired tests: by hand, by counting everything, and by simulation."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from lit_agents.evaluation.stats.intervals import wilson
from lit_agents.evaluation.stats.paired import compare, sign_flip
from lit_agents.evaluation.stats.pass_at_k import pass_at, rate_interval, tally
from lit_agents.types import StopReason, Task
from tests.reward.episodes import episode


def test_a_tally_counts_what_each_task_won_and_leaves_out_what_broke():
    from dataclasses import replace

    def of(task: str, stop: StopReason):
        return replace(episode([0], stop), task=Task("f", task, "test"))

    played = [of("a", StopReason.WON), of("a", StopReason.LOST), of("b", StopReason.ENVIRONMENT_CRASH)]
    assert tally([*played, of("c", StopReason.TURN_LIMIT), of("c", StopReason.ENVIRONMENT_DIED)]) == {
        "f/test/a": (1, 2),
        "f/test/c": (0, 1),
    }


@pytest.mark.parametrize(("won", "n", "k"), [(1, 4, 2), (3, 5, 3), (0, 3, 2), (3, 3, 1), (2, 6, 6)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_that_hold_a_win(won: int, n: int, k: int):
    outcomes = [True] * won + [False] * (n - won)
    choices = list(itertools.combinations(outcomes, k))
    assert pass_at({"a": (won, n)}, k)[0] == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_is_unbiased_and_the_plain_estimate_is_not():
    stream, chances, n, k = random.Random(0), [0.05, 0.3, 0.7], 6, 3
    truth = sum(1 - (1 - p) ** k for p in chances) / 3
    unbiased, plain = [], []
    for _ in range(4000):
        counts = {str(p): (sum(stream.random() < p for _ in range(n)), n) for p in chances}
        unbiased.append(pass_at(counts, k)[0])
        plain.append(sum(1 - (1 - c / n) ** k for c, _ in counts.values()) / 3)
    assert sum(unbiased) / 4000 == pytest.approx(truth, abs=0.01)
    assert abs(sum(plain) / 4000 - truth) > 0.02


def test_pass_at_1_is_the_mean_rate_and_tasks_with_too_few_episodes_are_left_out():
    counts = {"a": (1, 4), "b": (4, 4), "c": (1, 1)}
    assert pass_at(counts, 1)[0] == pytest.approx((0.25 + 1 + 1) / 3)
    assert pass_at(counts, 2)[0] == pytest.approx((0.5 + 1) / 2)
    assert math.isnan(pass_at(counts, 5)[0]) and pass_at(counts, 4)[1:] == wilson(2, 2)
    with pytest.raises(ValueError, match="pass@0"):
        pass_at(counts, 0)


def test_one_episode_per_task_gives_wilsons_interval():
    counts = {str(i): (int(i < 30), 1) for i in range(64)}
    assert rate_interval(counts) == pytest.approx(wilson(30, 64))
    assert rate_interval({}) == (0.0, 1.0)


def test_samples_of_tasks_that_are_all_alike_count_in_full_and_copies_count_once():
    # the worth of the episodes, by hand: tasks won always or never are worth one episode each, whatever k is
    always_or_never = {str(i): (8 * (i < 10), 8) for i in range(20)}
    assert rate_interval(always_or_never) == pytest.approx(wilson(10, 20))
    alike = {str(i): (4, 8) for i in range(20)}  # no task differs from another
    assert rate_interval(alike) == pytest.approx(wilson(10, 20))  # a variance of 0 is not believed
    mixed = {str(i): (4 + (-1) ** i, 8) for i in range(20)}
    # rate 1/2, spread 20, variance 20 / 160^2 * 20 / 19, worth .25 / variance = 304 of 160: not more than there are
    assert rate_interval(mixed) == pytest.approx(wilson(80, 160))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    stream, inside, narrow = random.Random(1), 0, 0
    for _ in range(600):
        chances = [stream.betavariate(0.6, 0.9) for _ in range(64)]
        counts = {str(i): (sum(stream.random() < p for _ in range(8)), 8) for i, p in enumerate(chances)}
        low, high = rate_interval(counts)
        inside += low <= 0.4 <= high  # the mean of the distribution tasks are drawn from
        naive = wilson(sum(c for c, _ in counts.values()), 512)
        narrow += naive[0] <= 0.4 <= naive[1]
    assert 0.92 <= inside / 600 <= 0.98 and narrow / 600 < 0.8


@pytest.mark.parametrize(("better", "worse"), [(5, 0), (7, 2), (3, 3), (1, 0), (12, 4)])
def test_with_one_episode_per_task_the_test_is_mcnemars(better: int, worse: int):
    n, extreme = better + worse, max(better, worse)
    exact = min(1.0, 2 * sum(math.comb(n, i) for i in range(extreme, n + 1)) / 2**n)
    assert sign_flip([1.0] * better + [-1.0] * worse + [0.0] * 9) == pytest.approx(exact)


def test_differences_of_any_size_are_tested_by_counting_all_patterns_of_signs():
    gains = [0.5, 0.25, 0.25, -0.125, 0.75]
    sums = [
        abs(sum(s * g for s, g in zip(signs, gains, strict=True))) for signs in itertools.product((1, -1), repeat=5)
    ]
    assert sign_flip(gains) == pytest.approx(sum(s >= sum(gains) - 1e-9 for s in sums) / 32)
    assert sign_flip([0.0, 0.0]) == 1.0


def test_many_differences_are_tested_by_random_patterns_and_always_the_same():
    stream = random.Random(2)
    gains = [stream.gauss(0.2, 1) for _ in range(60)]
    p = sign_flip(gains)
    # by the normal approximation of the sum of independent signs
    z = abs(sum(gains)) / math.sqrt(sum(g * g for g in gains))
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.02) and p == sign_flip(gains)


def test_a_comparison_is_by_task_and_of_the_tasks_both_played():
    first, second = {"a": (2, 2), "b": (1, 2), "c": (0, 2), "d": (1, 1)}, {"a": (0, 2), "b": (1, 2), "c": (1, 2)}
    found = compare(first, second)
    assert (found.tasks, found.better, found.worse) == (3, 1, 1)
    assert found.difference == pytest.approx((1 + 0 - 0.5) / 3)
    assert "better on 1, worse on 1 of 3 tasks" in found.sentence
    with pytest.raises(ValueError, match="no task in common"):
        compare(first, {"x": (1, 1)})
