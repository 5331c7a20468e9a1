"""One iteration's episodes: groups filled, failures tried again, groups without signal resampled, everything credited."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lit_agents.algorithm import losses
from lit_agents.algorithm.advantages import without_signal
from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.batch import Credited, columns_of, packed
from lit_agents.algorithm.experience import Assessment, Experience
from lit_agents.algorithm.token_tree import token_tree
from lit_agents.distributed import from_all_ranks
from lit_agents.errors import BadInput
from lit_agents.policy.sampling import stream
from lit_agents.reward.base import Reward
from lit_agents.reward.checked import worth as worth_of
from lit_agents.rollout.collector import Job
from lit_agents.rollout.schedule import Schedule
from lit_agents.rollout.task_sampler import TaskSampler
from lit_agents.types import Episode, EpisodeGroup, Task, TurnRewards

Play = Callable[[Sequence[Job]], list[Episode]]


@dataclass(frozen=True)
class Iteration:
    """What was collected."""

    groups: tuple[EpisodeGroup, ...]
    rewards: tuple[TurnRewards, ...]
    """Of `episodes`, in their order."""
    failures: tuple[Episode, ...] = ()
    """Attempts the environment broke: in no baseline, no loss, no rate."""
    unused: tuple[Episode, ...] = ()
    """Sound episodes nobody trains on: of groups too small or without signal, demonstrations that did not win. Played, so
    measured, kept and charged."""
    unused_rewards: tuple[TurnRewards, ...] = ()
    groups_played: int = 0
    """All groups, those of which nobody survived and resampled ones counted too."""
    groups_dropped: int = 0
    """Groups with too few survivors, and demonstrations that did not win."""
    groups_without_signal: int = 0
    """Groups all of whose members earned the same, resampled ones counted too."""

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The episodes of all groups, in order."""
        return tuple(e for group in self.groups for e in group.episodes)

    @property
    def played(self) -> tuple[Episode, ...]:
        """Every sound episode."""
        return self.episodes + self.unused

    @property
    def played_rewards(self) -> tuple[TurnRewards, ...]:
        """Of `played`, in their order."""
        return self.rewards + self.unused_rewards

    @property
    def policy_version(self) -> int:
        """Of the weights that sampled the episodes, as noted in their turns; -1 for demonstrations.

        Raises:
            RuntimeError: several versions played.
        """
        versions = {turn.policy_version for episode in self.episodes for turn in episode.turns} or {-1}
        if len(versions) > 1:
            raise RuntimeError(f"one iteration's episodes were sampled with several versions of the policy: {versions}")
        return versions.pop()

    def group_numbers(self) -> Tensor:
        """(B,) number of each episode's group."""
        return torch.tensor([g for g, group in enumerate(self.groups) for _ in group.episodes], dtype=torch.long)

    def shuffled(self, *key: object) -> list[int]:
        """Episode numbers with the groups in a random order, each kept together."""
        members: list[list[int]] = [[] for _ in self.groups]
        for b, g in enumerate(self.group_numbers().tolist()):
            members[g].append(b)
        return [b for g in stream("order", *key).permutation(len(members)) for b in members[int(g)]]


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


def credited(found: Iteration, module: AgentModule, budget: int) -> tuple[Credited, dict[str, float]]:
    """Advantages for every action token, and numbers to log.

    Args:
        budget: distinct tokens that go through the model at once.
    """
    columns = columns_of(found.episodes, found.rewards)
    mask_BA, rewards_BA, numbers = columns.mask_BA, columns.rewards_BA, dict[str, float]()
    own_BA = ref_BA = columns.logprobs_BA
    values_BA, after_B = torch.zeros_like(rewards_BA), torch.zeros(len(found.episodes))
    if module.needs_assessment:
        assessed = _assessed(found, module, budget, mask_BA)
        own_BA = own_BA if module.importance_cap is None else assessed.own_BA
        ref_BA = assessed.reference_BA if module.kl.used else ref_BA
        values_BA = torch.where(mask_BA, assessed.values_BA, 0.0)
        after_B = assessed.after_B * torch.tensor([float(e.stop.has_continuation) for e in found.episodes])
    if module.kl.used:
        difference_BA = torch.where(mask_BA, losses.kl_k1(columns.logprobs_BA, ref_BA), 0.0)
        everywhere = torch.stack([difference_BA.sum(), mask_BA.sum(), torch.tensor(float(len(found.episodes)))])
        # on all ranks together, or each would adapt a coefficient of its own
        total, tokens, episodes = module.sum_over_ranks(everywhere).tolist()
        numbers["kl"] = total / tokens
        if module.kl.reward:
            rewards_BA = rewards_BA - module.kl_coefficient * difference_BA
        before = module.kl_coefficient
        module.adapt_kl(numbers["kl"], int(episodes))
        numbers["kl_coefficient"] = before if module.kl.reward else module.kl_coefficient  # what this iteration uses
    advantages_BA, returns_BA = module.credit(
        Experience(mask_BA, rewards_BA, values_BA, after_B, found.group_numbers())
    )
    if module.has_critic:
        explained = float(losses.explained_variance(values_BA, returns_BA, mask_BA))
        numbers |= {} if math.isnan(explained) else {"explained_variance": explained}
    version = found.policy_version
    made = (advantages_BA, returns_BA, values_BA, own_BA, ref_BA, found.group_numbers(), version)
    return Credited(found.episodes, columns, *made), numbers


def _assessed(found: Iteration, module: AgentModule, budget: int, mask_BA: Tensor) -> Assessment:
    """`AgentModule.assess` over all episodes, in parts."""
    own_BA, reference_BA, values_BA = (torch.zeros(mask_BA.shape) for _ in range(3))
    whole = Assessment(own_BA, reference_BA, values_BA, torch.zeros(len(mask_BA)))
    for rows in packed(found.episodes, found.group_numbers().tolist(), budget):
        tree = token_tree([found.episodes[b] for b in rows]).to(module.policy.device)
        part = Assessment(*(x.float().cpu() for x in module.assess(tree)))
        for column_BA, some_BA in zip(whole[:3], part[:3], strict=True):
            column_BA[rows, : some_BA.shape[1]] = some_BA
        whole.after_B[rows] = part.after_B
    return whole
