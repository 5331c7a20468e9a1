"""What a budget buys, by hand and for any numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_agents.errors import BadInput
from lit_agents.rollout.budget import Budget, Plan, Prices
from lit_agents.rollout.schedule import Schedule

SIXTEEN = Schedule(tasks=16, group_size=4, minibatches=4)


@pytest.mark.parametrize(
    ("total", "share", "plan"),
    [
        (1000, 0.6, Plan(60, 7, 16, 4)),  # 400 units: six iterations of 64 episodes, and one of 16
        (992, 0.6, Plan(59, 7, 16, 4)),  # 595.2 buy 59; 402 are left, of which 2 buy no group
        (
            994,
            0.604,
            Plan(60, 6, 16, 18),
        ),  # 394 units: 98 groups; two are too few for four steps, so the last one has 18
        (1000, 0.0, Plan(0, 16, 16, 10)),
        (640, 0.0, Plan(0, 10, 16, 16)),
        (1000, 1.0, Plan(100, 0, 0, 0)),
        (1005, 1.0, Plan(100, 0, 0, 0)),
        (16, 0.0, Plan(0, 1, 16, 4)),
    ],
)
def test_a_budget_is_planned_to_its_end(total: float, share: float, plan: Plan):
    budget = Budget(total, share)
    found = budget.plan(SIXTEEN, 1)
    assert found == plan and found.demonstrations == budget.demonstrations
    assert [found.tasks_in(i) for i in range(plan.iterations)] == [plan.tasks] * (plan.iterations - 1) + [plan.last][
        : plan.iterations
    ]


@given(
    total=st.integers(1, 5000),
    tenths=st.integers(0, 10),
    demonstration=st.sampled_from([1, 2.5, 10, 0.1]),
    episode=st.sampled_from([1, 0.1, 3]),
    size=st.integers(1, 8),
    tasks=st.integers(1, 20),
    ranks=st.integers(1, 4),
)
def test_nothing_is_overspent_and_less_than_a_group_is_left(total, tenths, demonstration, episode, size, tasks, ranks):
    minibatches = max(1, tasks // 2)
    schedule = Schedule(tasks=tasks * ranks, group_size=size, minibatches=minibatches)
    if tenths == 10 and total < demonstration:
        with pytest.raises(BadInput, match="buy no demonstration, and the share leaves nothing for RL"):
            Budget(total, 1.0, Prices(demonstration, episode))
        return
    budget = Budget(total, tenths / 10, Prices(demonstration, episode))
    try:
        plan = budget.plan(schedule, ranks)
    except BadInput as error:
        assert "budget" in error.where
        assert float(budget.for_rl) < minibatches * ranks * size * episode  # it would not have paid for one iteration
        return
    counts = [plan.tasks_in(i) for i in range(plan.iterations)]
    assert all(count % ranks == 0 and count >= minibatches * ranks for count in counts)
    episodes = sum(counts) * size
    ledger = {"demonstrations": plan.demonstrations, "episodes": episodes, "games": 7}
    account = budget.account(ledger)
    assert account["sft"] + account["rl"] + account["remainder"] == pytest.approx(account["total"]) == total
    most = demonstration if tenths == 10 else size * ranks * episode
    assert -1e-9 <= account["remainder"] < most + 1e-9


def test_games_are_the_papers_unit():
    budget = Budget(1000, 0.6, Prices(demonstration=10, episode=0, game=1))
    assert (budget.demonstrations, budget.games()) == (60, 400)  # table 9's row
    account = budget.account({"demonstrations": 60, "episodes": 6400, "games": 400})
    assert account == {"total": 1000.0, "sft": 600.0, "rl": 400.0, "remainder": 0.0}
    assert Budget(1000, 1.0, Prices(10, 0, 1)).games() == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Budget(0, 0.5), "budget.total"),
        (lambda: Budget(10, 1.5), "budget.sft_share"),
        (lambda: Budget(9, 1.0), "budget: 9 units buy no demonstration"),
        (lambda: Budget(float("inf"), 0.5), "budget.total: inf is no number"),
        (lambda: Prices(episode=float("nan")), "budget.prices.episode: nan is no price"),
        (lambda: Prices(demonstration=0), "budget.prices.demonstration"),
        (lambda: Prices(episode=-1), "budget.prices.episode"),
        (lambda: Prices(episode=1, game=1), "budget.prices"),
        (lambda: Prices(episode=0), "budget.prices"),
        (lambda: Budget(100, 0.9).plan(SIXTEEN, 1), "budget: of 100 units 10 are left for RL, which buy 2 groups"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, words: str):
    with pytest.raises(BadInput, match=words):
        make()
