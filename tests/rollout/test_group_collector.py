"""An iteration: tasks in order, failures tried again, groups dropped or replaced, and what everything was worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from lit_agents.algorithm.experience import Iteration
from lit_agents.errors import BadInput
from lit_agents.reward.base import Reward
from lit_agents.rollout.collector import Job
from lit_agents.rollout.group_collector import Recruiter
from lit_agents.rollout.ledger import Ledger
from lit_agents.rollout.schedule import Schedule
from lit_agents.rollout.task_sampler import TaskSampler
from lit_agents.types import Episode, EpisodeGroup, StopReason, Task, Turn, TurnRewards
from tests.rollout.handmade import TASK, episode


def tasks(count: int) -> list[Task]:
    return [Task("f", str(i), "train") for i in range(count)]


class Points(Reward):
    """What the action says."""

    def __call__(self, episode: Episode) -> TurnRewards:
        return TurnRewards.of({"points": [float(turn.action) for turn in episode.turns]})


def worth(job: Job, points: float) -> Episode:
    turn = Turn("o", (1,), str(points), (2, 3), (-0.5, -0.5), 0, {"score": points})
    return Episode(job.task, job.member, (turn,), StopReason.LOST, 1.0)


def broken(job: Job, error: str = "the lamp is broken") -> Episode:
    return Episode(job.task, job.member, (), StopReason.ENVIRONMENT_CRASH, 1.0, error)


class Theatre:
    """Plays jobs by a rule and remembers them."""

    def __init__(self, rule: Callable[[Job], Episode]) -> None:
        self.rule, self.calls = rule, list[list[Job]]()

    def __call__(self, jobs: Sequence[Job]) -> list[Episode]:
        self.calls.append(list(jobs))
        return [self.rule(job) for job in jobs]

    @property
    def jobs(self) -> list[Job]:
        return [job for call in self.calls for job in call]


def recruiter(
    theatre: Theatre, compares: bool = True, count: int = 12, rank: int = 0, ranks: int = 1, demonstrated=False, **plan
) -> Recruiter:
    schedule = Schedule(**({"tasks": 4, "group_size": 3} | plan))
    sampler = TaskSampler(tasks(count), 5, schedule.tasks)
    return Recruiter(sampler, schedule, theatre, Points(), compares, rank, ranks, demonstrated)


def by_member(job: Job) -> Episode:
    return worth(job, float(job.member))


def test_every_task_has_its_group_in_order_and_every_episode_its_reward():
    theatre = Theatre(by_member)
    found = recruiter(theatre).recruit(0, 2)
    expected = TaskSampler(tasks(12), 5, 4).take(2, 0)
    assert [group.task for group in found.groups] == expected
    assert [[e.member for e in group.episodes] for group in found.groups] == [[0, 1, 2]] * 4
    assert [r.total for r in found.rewards] == [0.0, 1.0, 2.0] * 4
    assert all(e.task == group.task for group in found.groups for e in group.episodes)
    assert found.group_numbers().tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len(theatre.calls) == 1 and (found.failures, found.groups_dropped, found.groups_without_signal) == ((), 0, 0)


def test_who_does_not_win_is_not_imitated_but_paid_for():
    losers = {task.id for task in TaskSampler(tasks(12), 5, 4).take(0, 0)[1:3]}

    def rule(job: Job) -> Episode:
        played = worth(job, 1.0)
        return played if job.task.id in losers else replace(played, stop=StopReason.WON)

    found = recruiter(Theatre(rule), compares=False, demonstrated=True, group_size=1).recruit(0, 0)
    assert len(found.groups) == 2 and not losers & {e.task.id for e in found.episodes} and len(found.rewards) == 2
    assert {e.task.id for e in found.unused} == losers and found.groups_dropped == 2
    ledger = Ledger()
    ledger.charge(found.played, demonstrated=True)
    assert (ledger.demonstrations, ledger.demonstrations_lost, ledger.turns) == (4, 2, 4)
    halves = Theatre(lambda job: replace(worth(job, 1.0), stop=StopReason.LOST if job.member else StopReason.WON))
    with pytest.raises(BadInput, match="of 8 demonstrations none was won"):  # beside one that won no loser is imitated
        recruiter(halves, compares=False, demonstrated=True, group_size=2).recruit(0, 0)
    everyone = recruiter(Theatre(rule), compares=False, group_size=1).recruit(0, 0)
    assert len(everyone.groups) == 4 and not everyone.unused  # what a policy loses, it learns from
    with pytest.raises(BadInput, match="of 4 demonstrations none was won"):
        recruiter(Theatre(lambda job: worth(job, 1.0)), compares=False, demonstrated=True, group_size=1).recruit(0, 0)


def test_random_numbers_belong_to_seed_iteration_task_member_and_attempt():
    keys: list[tuple[object, ...]] = []
    for seed in (0, 1):
        for iteration in (0, 1):
            theatre = Theatre(lambda job: broken(job) if job.member == 1 and job.key[-1] == 0 else worth(job, 1.0))
            recruiter(theatre, count=3, resample_rounds=2).recruit(seed, iteration)  # a task may come twice
            keys += [job.key for job in theatre.jobs]
    assert len(set(keys)) == len(keys) > 100


def test_only_what_failed_is_tried_again_and_as_often_as_allowed():
    def rule(job: Job) -> Episode:
        attempt = job.key[-1]
        assert isinstance(attempt, int)
        return broken(job, f"attempt {attempt}") if job.member == 1 and attempt < 2 else by_member(job)

    theatre = Theatre(rule)
    found = recruiter(theatre, retries=2).recruit(0, 0)
    assert [len(call) for call in theatre.calls] == [12, 4, 4]
    assert all(job.member == 1 for call in theatre.calls[1:] for job in call)
    assert len(found.failures) == 8 and {e.error for e in found.failures} == {"attempt 0", "attempt 1"}
    assert all(len(group.episodes) == 3 for group in found.groups)

    found = recruiter(Theatre(rule), retries=1).recruit(0, 0)
    assert [[e.member for e in group.episodes] for group in found.groups] == [[0, 2]] * 4
    assert len(found.failures) == 8 and [r.total for r in found.rewards] == [0.0, 2.0] * 4


@pytest.mark.parametrize(("compares", "kept"), [(True, 3), (False, 4)])
def test_a_group_with_too_few_survivors_is_dropped(compares: bool, kept: int):
    first = TaskSampler(tasks(12), 5, 4).take(0, 0)[0].id
    theatre = Theatre(lambda job: broken(job) if job.task.id == first and job.member else by_member(job))
    found = recruiter(theatre, compares, retries=0).recruit(0, 0)
    assert (len(found.groups), found.groups_dropped) == (kept, 4 - kept)
    assert all(not e.stop.is_failure for e in found.episodes) and len(found.rewards) == len(found.episodes)
    assert [g for g in found.groups if g.task.id == first] == (
        [] if compares else [EpisodeGroup(found.groups[0].task, (found.groups[0].episodes[0],))]
    )


def test_the_run_stops_when_most_attempts_fail_and_says_why():
    def rule(job: Job) -> Episode:
        return broken(job, f"lamp {job.member}") if job.member else by_member(job)

    # 4 of 12 succeed; 8 fail and fail again: 16 failures of 20 attempts
    with pytest.raises(BadInput) as caught:
        recruiter(Theatre(rule), compares=False, retries=1, max_failures=0.79).recruit(0, 0)
    assert "16 of 20 episodes failed ({'environment_crash': 16}) and 0 groups were dropped" in str(caught.value)
    assert "The last error: lamp 2" in str(caught.value) and "data.schedule.max_failures" in str(caught.value)
    assert len(recruiter(Theatre(rule), compares=False, retries=1, max_failures=0.8).recruit(0, 0).groups) == 4


def test_the_run_stops_when_no_group_survives():
    rule = Theatre(lambda job: broken(job) if job.member else by_member(job))
    with pytest.raises(BadInput, match="4 groups were dropped"):
        recruiter(rule, max_failures=1.0).recruit(0, 0)


def test_groups_without_signal_are_replaced_by_new_tasks_as_long_as_there_are_rounds():
    def rule(job: Job) -> Episode:  # only in round 1 are there differences, and only for even tasks
        _, _, round_, *_ = job.key
        return worth(job, float(job.member) if round_ == 1 and int(job.task.id) % 2 == 0 else 1.0)

    theatre = Theatre(rule)
    found = recruiter(theatre, resample_rounds=1).recruit(0, 0)
    drawn = TaskSampler(tasks(12), 5, 4).take(0, 1)
    even = [task for task in drawn if int(task.id) % 2 == 0]
    assert 0 < len(even) < 4
    assert [g.task for g in found.groups[: len(even)]] == even
    assert len(found.groups) == 4 and found.groups_without_signal == 8 - len(even)
    assert [g.task for g in found.groups[len(even) :]] == TaskSampler(tasks(12), 5, 4).take(0, 0)[: 4 - len(even)]
    assert len(found.rewards) == len(found.episodes) == 12
    for e, r in zip(found.episodes, found.rewards, strict=True):
        assert r.total == float(e.turns[0].action)

    few = Theatre(rule)
    assert recruiter(few, resample_rounds=0).recruit(0, 0).groups_without_signal == 4 and len(few.calls) == 1


def test_every_sound_episode_is_played_whether_it_is_trained_on_or_not():
    def rule(job: Job) -> Episode:  # first round: nobody differs; later: one member of each group breaks for good
        if job.key[2] == 0:
            return worth(job, 1.0)
        return broken(job) if job.member == 0 else worth(job, float(job.member))

    theatre = Theatre(rule)
    found = recruiter(theatre, resample_rounds=1, retries=0).recruit(0, 0)
    sound = sum(not rule(job).stop.is_failure for job in theatre.jobs)
    assert len(found.episodes) == 8 and len(found.unused) == 12 and len(found.played) == sound == 20
    assert [r.total for r in found.unused_rewards] == [1.0] * 12
    assert len(found.played_rewards) == len(found.played)


def test_where_all_groups_have_signal_no_further_round_is_played():
    theatre = Theatre(by_member)
    recruiter(theatre, resample_rounds=3).recruit(0, 0)
    assert len(theatre.calls) == 1


def test_an_algorithm_that_compares_nothing_replaces_nothing():
    found = recruiter(Theatre(lambda job: worth(job, 1.0)), compares=False, resample_rounds=3, group_size=1).recruit(
        0, 0
    )
    assert (len(found.groups), found.groups_without_signal) == (4, 0)


def test_ranks_together_play_what_one_process_would_play():
    whole = Theatre(by_member)
    recruiter(whole).recruit(3, 1)
    parts = [Theatre(by_member) for _ in range(2)]
    for rank, theatre in enumerate(parts):
        found = recruiter(theatre, rank=rank, ranks=2).recruit(3, 1)
        assert len(found.groups) == 2
    assert {j.key: (j.task, j.member) for j in whole.jobs} == {
        j.key: (j.task, j.member) for theatre in parts for j in theatre.jobs
    }
    assert len(whole.jobs) == sum(len(theatre.jobs) for theatre in parts)


# tasks


@pytest.mark.parametrize(("count", "per_iteration"), [(12, 4), (10, 4), (3, 7), (5, 5)])
def test_every_task_is_played_once_per_pass_in_a_new_order(count: int, per_iteration: int):
    sampler = TaskSampler(tasks(count), 1, per_iteration)
    drawn = [task.id for iteration in range(count * 3) for task in sampler.take(iteration, 0)]
    passes = [drawn[i : i + count] for i in range(0, len(drawn), count)]
    assert all(Counter(p) == Counter(str(i) for i in range(count)) for p in passes) and len(passes) >= 3
    assert len({tuple(p) for p in passes}) > 1
    assert [t.id for t in TaskSampler(tasks(count), 1, per_iteration).take(2, 0)] == drawn[
        2 * per_iteration : 3 * per_iteration
    ]
    assert drawn != [t.id for i in range(count * 3) for t in TaskSampler(tasks(count), 2, per_iteration).take(i, 0)]


def test_replacements_are_drawn_anew_in_each_round_and_iteration():
    sampler = TaskSampler(tasks(50), 1, 6)
    draws = {tuple(t.id for t in sampler.take(i, r)) for i in range(3) for r in (1, 2)}
    assert len(draws) == 6 and sampler.take(1, 2) == TaskSampler(tasks(50), 1, 6).take(1, 2)


def test_a_shuffled_iteration_keeps_groups_together_and_loses_nobody():
    groups = tuple(EpisodeGroup(TASK, tuple(episode([([1], [2])]) for _ in range(n))) for n in (3, 1, 4, 2, 5, 2))
    found = Iteration(groups, ())
    numbers = found.group_numbers().tolist()
    orders = [found.shuffled(0, i) for i in range(6)]
    for order in orders:
        assert sorted(order) == list(range(17))
        met = [numbers[b] for b in order]
        assert [g for i, g in enumerate(met) if i == 0 or g != met[i - 1]] == list(dict.fromkeys(met))
    assert len({tuple(order) for order in orders}) > 1 and found.shuffled(0, 1) == orders[1]
    assert torch.equal(found.group_numbers(), torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4, 5, 5]))


# schedules


@pytest.mark.parametrize(
    "plan",
    [{"tasks": 0}, {"group_size": 0}, {"passes": 0}, {"minibatches": 0}, {"micro_batch_tokens": 0}, {"retries": -1},
     {"resample_rounds": -1}, {"max_failures": 1.5}, {"minibatches": 9}],
)  # fmt: skip
def test_schedules_that_cannot_be_are_refused_by_name(plan: dict[str, int]):
    with pytest.raises(BadInput, match=rf"data\.schedule\.{next(iter(plan))}"):
        Schedule(**plan)  # type: ignore[arg-type]


def test_one_episode_is_no_group_and_tasks_are_shared_equally():
    with pytest.raises(BadInput, match=r"data\.schedule\.group_size=1"):
        Schedule(group_size=1).check(compares_group=True, ranks=1, context=1024)
    with pytest.raises(BadInput, match=r"data\.schedule\.tasks: 8 tasks cannot be shared equally by 3"):
        Schedule().check(compares_group=False, ranks=3, context=1024)
    with pytest.raises(BadInput, match=r"minibatches: 4 cannot each hold a group of every process: 8 tasks"):
        Schedule(minibatches=4).check(compares_group=False, ranks=4, context=1024)
    Schedule(minibatches=4).check(compares_group=False, ranks=2, context=1024)
    Schedule(group_size=1).check(compares_group=False, ranks=4, context=1024)
    assert Schedule(passes=2, minibatches=3).steps_per_iteration == 6


def test_the_longest_episode_there_may_be_goes_through_the_model_at_once():
    with pytest.raises(
        BadInput, match=r"data\.schedule\.micro_batch_tokens: .*1025 \(data\.limits\.context\).*Set it to 1025"
    ):
        Schedule(micro_batch_tokens=1024).check(compares_group=True, ranks=1, context=1025)
    Schedule(micro_batch_tokens=1024).check(compares_group=True, ranks=1, context=1024)
