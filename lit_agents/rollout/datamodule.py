"""On-policy data for Lightning: at the top of every epoch the current policy plays, then the epoch trains on it.

A Lightning epoch is one iteration. The loader is an iterable dataset with a length: it collects when iteration begins and
then yields a minibatch for each optimizer step, as many as the configuration fixes: the only arrangement that is on-policy
with every Trainer default, in one process and in many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.batch import batches
from lit_agents.algorithm.credit import credited
from lit_agents.algorithm.experience import Iteration
from lit_agents.algorithm.micro_batches import refuse_accumulation, refuse_skipped
from lit_agents.environment.base import TextEnvironment
from lit_agents.environment.split_overlap import COMPARED, TaskSet, exactly, others, refuse_overlaps
from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.chat import ChatFormat
from lit_agents.policy.engine.base import Engine
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.policy.sampling import Sampling
from lit_agents.reward.base import Reward
from lit_agents.reward.checked import check_reward, worth
from lit_agents.reward.outcome import Outcome
from lit_agents.rollout.agents import ExpertPlayer, Player, PolicyPlayer
from lit_agents.rollout.budget import Budget, Plan
from lit_agents.rollout.eval_set import Elsewhere
from lit_agents.rollout.group_collector import Recruiter
from lit_agents.rollout.held_out import Seen, refuse_seen, seen_in, together
from lit_agents.rollout.ledger import Ledger
from lit_agents.rollout.runner import Stage
from lit_agents.rollout.schedule import Limits, Schedule
from lit_agents.rollout.task_sampler import TaskSampler
from lit_agents.types import Episode, Minibatch, Task, TurnRewards


class RolloutDataModule(LightningDataModule):
    """Collects, credits and batches; also plays the validation episodes.

    Args:
        environment: the world.
        tasks: which tasks of it, e.g. ``w2-o3-q4``.
        reward: what turns are worth.
        train_tasks: distinct training tasks; every one is played once before any is played again.
        validation_tasks: tasks a checkpoint is chosen on.
        test_tasks: tasks results are reported on.
        schedule: how many episodes an iteration has and how they are cut into optimizer steps.
        limits: how long an episode may be.
        sampling: how actions are drawn in training.
        evaluation: how actions are drawn in validation and test.
        engine: what samples actions.
        seed: keys every random number; follows ``seed_everything``.
    """

    def __init__(
        self,
        environment: TextEnvironment,
        tasks: str,
        reward: Reward | None = None,
        train_tasks: int = 100,
        validation_tasks: int = 32,
        test_tasks: int = 64,
        schedule: Schedule = Schedule(),  # noqa: B008 - frozen, so sharing one default is safe
        limits: Limits = Limits(),  # noqa: B008
        sampling: Sampling = Sampling(),  # noqa: B008
        evaluation: Sampling = Sampling(),  # noqa: B008
        engine: Engine | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sampling.check_trainable("data.sampling")
        counts = {"train": train_tasks, "validation": validation_tasks, "test": test_tasks}
        for name, count in counts.items():
            if count < 1:
                raise BadInput(f"data.{name}_tasks", f"{count} is below 1.", "Set it to 1 or more.")
        self.environment, self.tasks, self.reward = environment, tasks, reward or Outcome()
        self.counts = counts
        self.schedule, self.limits, self.sampling, self.evaluation = schedule, limits, sampling, evaluation
        self.engine, self.seed = engine or TransformersEngine(), seed
        self.ledger, self.iteration = Ledger(), 0
        self.latest: Iteration | None = None
        self.stage: Stage | None = None
        self.on_progress: Callable[[str, int, int], None] = lambda what, done, total: None
        self.numbers: dict[str, float] = {}
        self.budget: Budget | None = None
        self.plan: Plan | None = None
        self._sampler: TaskSampler | None = None
        self.seen: Seen = {}

    # tasks

    def split(self, name: str, count: int | None = None) -> list[Task]:
        """Tasks of a split, made first if they are not there; as many as configured, or ``count`` for a stage before.

        Raises:
            BadInput: they cannot be had, or cannot supply what the reward needs.
        """
        part = "train" if name == "sft" else name
        flags = {"spec": "data.tasks", "count": "sft.demonstrations" if count else f"data.{part}_tasks"}
        try:
            found = exactly(self.environment, self.tasks, name, count or self.counts[part])
        except BadInput as error:  # the environment knows its arguments, the user typed flags
            raise BadInput(flags.get(error.where, error.where), error.reason, error.way_out) from error
        self.reward.check(found)
        return found

    def demonstrations(self, count: int, minibatches: int) -> RolloutDataModule:
        """The same world for a supervised stage: ``count`` expert episodes, each its own group, in one ledger."""
        whole = {"tasks": count, "group_size": 1, "passes": 1, "minibatches": minibatches, "resample_rounds": 0}
        schedule = replace(self.schedule, **whole)
        other = RolloutDataModule(
            self.environment, self.tasks, self.reward, count, self.counts["validation"], self.counts["test"],
            schedule, self.limits, self.sampling, self.evaluation, self.engine, self.seed,
        )  # fmt: skip
        other.ledger, other.stage, other.on_progress = self.ledger, self.stage, self.on_progress
        other.budget, other.seen = self.budget, self.seen
        return other

    def elsewhere(self, other: Elsewhere) -> RolloutDataModule:
        """The same world for a measurement on other tasks, or with another number of turns."""
        counts = self.counts | ({other.split: other.count} if other.count else {})
        made = RolloutDataModule(
            self.environment, other.tasks or self.tasks, self.reward, counts["train"], counts["validation"], counts["test"],
            self.schedule, replace(self.limits, turns=other.turns or self.limits.turns), self.sampling, self.evaluation,
            self.engine, self.seed,
        )  # fmt: skip
        made.ledger, made.on_progress = self.ledger, self.on_progress
        made.stage = self.stage and self.stage.within(made.limits)
        return made

    # Lightning

    @property
    def module(self) -> AgentModule:
        """The algorithm, which owns the policy."""
        assert self.trainer is not None
        module = self.trainer.lightning_module
        assert isinstance(module, AgentModule)
        return module

    def setup(self, stage: str) -> None:
        """Check that schedule and algorithm fit each other, and that the tasks are there.

        Raises:
            BadInput: by the name of the flag.
        """
        assert self.trainer is not None
        self.schedule.check(self.module.compares_group, self.trainer.world_size, self.limits.context)
        refuse_accumulation(self.trainer.accumulate_grad_batches)
        refuse_skipped(self.trainer.limit_train_batches)
        name = "sft" if self.module.demonstrated else "train"
        self._sampler = TaskSampler(self.split(name), self.seed, self.schedule.tasks)
        self.module.temperature = 1.0 if self.module.demonstrated else self.sampling.temperature
        self.module.policy.compute_in(self.trainer.precision)
        self.open(self.module.policy)

    def preflight(self, chat: ChatFormat, **splits: int | None) -> list[TaskSet]:
        """Before any model is loaded: are the tasks there, do they fit the reward, do first messages fit the context?

        Returns:
            The tasks of each split.

        Raises:
            BadInput: by the name of the file or flag.
        """
        self.stage = self.stage or Stage(self.environment, chat, self.limits)
        longest = max(self.sampling.max_tokens, self.evaluation.max_tokens)
        found = {name: self.split(name, count) for name, count in splits.items()}
        for name, tasks in found.items():
            if not tasks:
                reason = f"the environment has no task of {self.tasks} for the split {name}."
                raise BadInput(
                    "data.environment", reason, "Let its tasks() serve that split, or use another environment."
                )
            check_reward(self.reward, tasks[0])
        for name, tasks in found.items():
            self.stage.check(tasks, longest, demonstrated=name == "sft")
        return [TaskSet(name, tasks) for name, tasks in found.items()]

    def keep_apart(self, sets: Sequence[TaskSet], **started: Seen) -> None:
        """Before any model is loaded: refuse tasks that are in two splits, and tests of what a checkpoint has seen.

        Args:
            sets: all tasks of a run, those of other places too; needs `preflight`.
            started: by the flag that names a checkpoint, what that one has seen.

        Raises:
            BadInput: by the name of the flag.
        """
        assert self.stage is not None
        known = refuse_overlaps(sets, self.stage.first_observations, "data.environment", "data.train_tasks")
        for flag, seen in started.items():
            refuse_seen(sets, known, seen, flag)
        self.seen = seen_in(sets, known, started.get("start_from", {}))

    def other_splits(self, split: str, demonstrated: bool) -> list[TaskSet]:
        """The first tasks of the other splits, to compare those of one split with.

        Args:
            demonstrated: whether there are demonstrations.
        """
        counts = self.counts | ({"sft": COMPARED} if demonstrated else {})
        return others(self.environment, self.tasks, split, counts)

    def open(self, policy: CausalLMPolicy) -> Stage:
        """Load the policy, start the environments and attach the engine, once."""
        policy.load()
        self.stage = self.stage or Stage(self.environment, policy.chat, self.limits)
        self.stage.attach(self.engine, policy)
        return self.stage

    def close(self) -> None:
        """End every environment, and the engine."""
        self.engine.close()
        if self.stage is not None:
            self.stage.close()
            self.stage = None

    def train_dataloader(self) -> DataLoader[Minibatch]:
        """Collects at the top of every epoch."""
        return DataLoader(_Sized(self._batches, self.schedule.steps_per_iteration), batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        """One item: the validation episodes and their rewards."""
        return DataLoader(_Sized(self._validation, 1), batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """Where collection stands; everything else follows from the seed and the number of the iteration."""
        return {"iteration": self.iteration, "ledger": self.ledger.total(), "seen": dict(self.seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.iteration = state_dict["iteration"]
        self.seen = together(self.seen, state_dict.get("seen", {}))
        self.ledger.go_on_from(state_dict["ledger"], first=self.trainer is None or self.trainer.is_global_zero)

    def account(self) -> dict[str, Any]:
        """What ``ledger.json`` holds: everything that was spent, and how that stands to the budget."""
        total = self.ledger.total()
        return total | ({"budget": self.budget.account(total)} if self.budget else {})

    # one iteration

    def _batches(self) -> Iterator[Minibatch]:
        module, schedule = self.module, self.schedule
        if self.latest is None or not module.demonstrated:  # demonstrations do not change, so they are collected once
            self.latest = self._collect()
        found = self.latest
        with self.ledger.clock("crediting"):
            data, self.numbers = credited(found, module, schedule.micro_batch_tokens)
        for number in range(schedule.passes):
            order = found.shuffled(self.seed, self.iteration, number)
            for minibatch in batches(
                data, order, schedule.minibatches, schedule.micro_batch_tokens,
                module.per_episode_mean, module.skips_zero_advantage and not module.kl.loss, self._share,
            ):  # fmt: skip
                self.ledger.tokens_trained += sum(int(part.tree.mask_BA.sum()) for part in minibatch.parts)
                self.ledger.tokens_computed += sum(module.policy.computed(part.tree) for part in minibatch.parts)
                yield minibatch
        self.iteration += 1

    def _share(self, count: float) -> float:
        """What this rank's loss counts for, so that the average over ranks is the mean over what all ranks have."""
        assert self.trainer is not None
        if self.trainer.world_size == 1:
            return 1.0
        everywhere = float(self.module.sum_over_ranks(torch.tensor(count)))
        return count * self.trainer.world_size / max(everywhere, 1.0)

    def _collect(self) -> Iteration:
        assert self.trainer is not None and self.stage is not None and self._sampler is not None
        part = "demonstrating" if self.module.demonstrated else "collecting"
        tasks = self.plan.tasks_in(self.iteration) if self.plan else self.schedule.tasks
        with self.ledger.clock(part):
            self.engine.refresh()
            recruiter = Recruiter(
                self._sampler, replace(self.schedule, tasks=tasks), self._play, self.reward, self.module.compares_group,
                self.trainer.global_rank, self.trainer.world_size, self.module.demonstrated,
            )  # fmt: skip
            found = recruiter.recruit(self.seed, 0 if self.module.demonstrated else self.iteration)
            self.engine.rest()
        if not (self.module.demonstrated and self.iteration):  # a resumed stage plays its demonstrations again
            self.ledger.charge([*found.played, *found.failures], self.module.demonstrated)
        if self.trainer.is_global_zero and not self.module.demonstrated:  # the tasks are those of all ranks
            before = self._sampler.distinct(self.iteration, 0)
            self.ledger.games += self._sampler.distinct(self.iteration, tasks) - before
        return found

    def _play(self, jobs: Sequence[Any]) -> list[Episode]:
        assert self.stage is not None
        player: Player = ExpertPlayer(self.module.policy.chat)
        if not self.module.demonstrated:
            player = PolicyPlayer(self.engine, self.module.policy.chat, self.sampling, self.module.global_step)
        return self.stage.play(jobs, player, self.sampling.max_tokens, self.on_progress)

    def _validation(self) -> Iterator[tuple[list[Episode], list[TurnRewards]]]:
        assert self.trainer is not None and self.stage is not None
        tasks = self.split("validation")[self.trainer.global_rank :: self.trainer.world_size]
        with self.ledger.clock("validating"):
            self.engine.refresh()
            player = PolicyPlayer(self.engine, self.module.policy.chat, self.evaluation, self.module.global_step)
            retries = self.schedule.retries
            how = (self.evaluation, self.seed, self.on_progress)
            episodes = self.stage.evaluate(tasks, player, *how, retries=retries)
            self.engine.rest()
        sound = [e for e in episodes if not e.stop.is_failure]
        yield episodes, [worth(self.reward, e) for e in sound]


class _Sized(IterableDataset[Any]):
    """Runs a generator function anew in every epoch and holds it to its promised length."""

    def __init__(self, make: Callable[[], Iterator[Any]], length: int) -> None:
        self._make, self._length = make, length

    def __len__(self) -> int:
        """Fixed by configuration, so that all ranks agree; without it Lightning reads one batch ahead of the policy."""
        return self._length

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:
            raise RuntimeError(
                "rollouts must be collected in the trainer's process: a loader worker has a stale policy"
            )
        items = list(self._make())  # Lightning asks for no item beyond the length, so this is the place to count
        if len(items) != self._length:
            raise RuntimeError(f"{len(items)} batches made where {self._length} were promised; other ranks would hang")
        yield from items
