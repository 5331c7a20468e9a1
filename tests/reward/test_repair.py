from __future__ import annotations

import pytest

from lit_agents.errors import BadInput
from lit_agents.reward.repair import Applies, TestsGained, TestsPassed
from lit_agents.types import Episode, StopReason, Task, Turn

TESTED = {"passed": 0.95, "passed_before": 0.9, "kept": 1.0, "changed": True}


def submitted(stop: StopReason = StopReason.LOST, before: int = 0, **signals) -> Episode:
    turns = [Turn("o", (), "ls", (), (), 0, {})] * before + [Turn("o", (), "submit", (), (), 0, TESTED | signals)]
    return Episode(Task("f", "i", "train"), 0, tuple(turns), stop, 1.0)


def worths(episode: Episode) -> list[tuple[float, ...]]:
    return [pytest.approx(reward(episode).values) for reward in (TestsGained(), TestsPassed(), Applies())]


def test_they_pay_on_the_turn_that_was_tested():
    assert worths(submitted(before=1)) == [(0.0, 0.5), (0.0, 0.95), (0.0, 1.0)]  # half of the tenth that was missing
    assert worths(submitted(StopReason.WON, passed=1.0)) == [(1.0,), (1.0,), (1.0,)]


def test_doing_nothing_or_harm_gains_nothing():
    assert worths(submitted(passed=0.9, changed=False)) == [(0.0,), (0.0,), (0.0,)]
    assert worths(submitted(passed=0.9)) == [(0.0,), (0.9,), (1.0,)]  # the paper's ratio pays for any harmless change
    assert worths(submitted(passed=0.4, kept=0.5)) == [(0.0,), (0.4,), (0.0,)]


def test_what_was_not_submitted_is_worth_nothing():
    episode = Episode(
        Task("f", "i", "train"), 0, (Turn("o", (), "ls", (), (), 0, {"valid": True}),), StopReason.TURN_LIMIT, 1.0
    )
    assert worths(episode) == [(0.0,), (0.0,), (0.0,)]


@pytest.mark.parametrize("reward", [TestsGained(), TestsPassed(), Applies()], ids=lambda reward: type(reward).__name__)
def test_tasks_without_tests_are_refused(reward: TestsGained):
    with pytest.raises(BadInput, match=f"reward {type(reward).__name__}.*1 of 2 tasks"):
        reward.check([Task("f", "i", "train"), Task("f", "j", "train", labels={"failing": "1"})])
    reward.check([Task("f", "j", "train", labels={"failing": "1"})])
