"""One iteration's episodes: groups filled, failures tried again, groups without signal resampled, everything credited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lit_agents.algorithm.advantages import without_signal
from lit_agents.algorithm.experience import Iteration
from lit_agents.distributed import from_all_ranks
from lit_agents.errors import BadInput
from lit_agents.reward.base import Reward
from lit_agents.reward.checked import worth as worth_of
from lit_agents.rollout.collector import Job
from lit_agents.rollout.schedule import Schedule
from lit_agents.rollout.task_sampler import TaskSampler
from lit_agents.types import Episode, EpisodeGroup, Task, TurnRewards

Play = Callable[[Sequence[Job]], list[Episode]]


def _put_aside(found: Iteration, group: EpisodeGroup, worth: tuple[TurnRewards, ...]) -> Iteration:
    return replace(found, unused=found.unused + group.episodes, unused_rewards=found.unused_rewards + worth)


def _equal(worth: Sequence[TurnRewards]) -> bool:
    """Whether these returns teach nothing when compared; asked as the algorithms ask it."""
    returns_B = torch.tensor([w.total for w in worth])
    return bool(without_signal(returns_B, torch.zeros(len(worth), dtype=torch.long)))


@dataclass(frozen=True)
class Recruiter:
    """Fills one rank's share of an iteration."""

    sampler: TaskSampler
    schedule: Schedule
    play: Play
    reward: Reward
    compares: bool
    """A group needs two survivors, and is without signal if all earned the same."""
    rank: int = 0
    ranks: int = 1
    demonstrated: bool = False
    """Experts play. Who does not win is nobody to imitate."""

    def recruit(self, seed: int, iteration: int) -> Iteration:
        """Collect.

        Raises:
            BadInput: most attempts failed, or no group survived.
        """
        share = self.schedule.tasks // self.ranks
        found = Iteration((), ())
        spare: list[tuple[EpisodeGroup, tuple[TurnRewards, ...]]] = []
        for round_ in range(self.schedule.resample_rounds + 1):
            drawn = self.sampler.take(iteration, round_, self.schedule.tasks)
            tasks = drawn[self.rank :: self.ranks][: share - len(found.groups)]
            attempts, failures = self._attempt(tasks, (seed, iteration, round_))
            played = found.groups_played + len(tasks)
            found = replace(found, failures=found.failures + failures, groups_played=played)
            for group in self._groups(tasks, attempts):
                worth = tuple(worth_of(self.reward, episode) for episode in group.episodes)
                lost = self.demonstrated and not all(episode.won for episode in group.episodes)
                if lost or len(group.episodes) < (2 if self.compares else 1):
                    found = replace(_put_aside(found, group, worth), groups_dropped=found.groups_dropped + 1)
                elif self.compares and _equal(worth):
                    found = replace(found, groups_without_signal=found.groups_without_signal + 1)
                    spare.append((group, worth))
                else:
                    found = replace(found, groups=(*found.groups, group), rewards=found.rewards + worth)
        missing = share - len(found.groups)
        for group, worth in spare[:missing]:  # nothing better was found in time
            found = replace(found, groups=(*found.groups, group), rewards=found.rewards + worth)
        for group, worth in spare[missing:]:
            found = _put_aside(found, group, worth)
        self._check(found)
        return found

    def _attempt(self, tasks: Sequence[Task], key: tuple[int, int, int]) -> tuple[list[Episode], tuple[Episode, ...]]:
        """Every member of every task, tried again while its environment fails; all that failed besides.

        Args:
            key: seed, iteration and round.
        """
        places = [(n, task, m) for n, task in enumerate(tasks) for m in range(self.schedule.group_size)]
        episodes: dict[int, Episode] = {}
        failures: list[Episode] = []
        for attempt in range(self.schedule.retries + 1):
            open_ = [i for i in range(len(places)) if i not in episodes or episodes[i].stop.is_failure]
            jobs = []
            for i in open_:
                n, task, member = places[i]
                place, round_ = self._place(n), key[-1]
                jobs.append(Job(task, member, (*key, place, task.id, member, attempt), round_, place, attempt))
            if not jobs:
                break
            for i, episode in zip(open_, self.play(jobs), strict=True):
                episodes[i] = episode
                failures += [episode] if episode.stop.is_failure else []
        return [episodes[i] for i in range(len(places))], tuple(failures)

    def _place(self, n: int) -> int:
        """Number of this rank's n-th task among those of all ranks: what is played does not depend on how many there are."""
        return self.rank + self.ranks * n

    def _groups(self, tasks: Sequence[Task], episodes: Sequence[Episode]) -> Iterator[EpisodeGroup]:
        """The survivors of each task."""
        size = self.schedule.group_size
        for n, task in enumerate(tasks):
            sound = tuple(e for e in episodes[n * size : (n + 1) * size] if not e.stop.is_failure)
            yield EpisodeGroup(task, sound)

    def _check(self, found: Iteration) -> None:
        """The circuit breaker. On all ranks together, so that no one of them stops alone and leaves the others waiting."""
        mine = (
            len(found.groups),
            found.groups_dropped,
            len(found.played),
            [(e.stop.value, e.error) for e in found.failures],
        )
        everyone = from_all_ranks([mine])
        failures = [failure for *_, failed in everyone for failure in failed]
        attempts = sum(played for _, _, played, _ in everyone) + len(failures)
        if all(groups for groups, *_ in everyone) and len(failures) <= self.schedule.max_failures * attempts:
            return
        if self.demonstrated and not failures:
            reason = f"of {attempts} demonstrations none was won, or none on one of the processes."
            way_out = "Raise data.limits.turns, data.limits.context or data.sampling.max_tokens."
            raise BadInput("sft.demonstrations", reason, way_out)
        last = failures[-1][1] if failures else "no failure"
        reason = (
            f"{len(failures)} of {attempts} episodes failed ({dict(Counter(stop for stop, _ in failures))}) and "
            f"{sum(dropped for _, dropped, *_ in everyone)} groups were dropped. The last error: {last}"
        )
        raise BadInput("data.environment", reason, "Mend the environment, or raise data.schedule.max_failures.")
