"""The running world: environment processes and the engine, opened once for all stages of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace

from lit_agents.environment.base import TextEnvironment
from lit_agents.environment.pool.pool import EnvPool
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.chat import ChatFormat
from lit_agents.policy.engine.base import Engine
from lit_agents.policy.sampling import Sampling
from lit_agents.rollout.agents import Player, has_no_player
from lit_agents.rollout.collector import Collector, Job
from lit_agents.rollout.schedule import Limits
from lit_agents.types import Episode, Task

Progress = Callable[[str, int, int], None]
"""What is being played, how many episodes have ended, how many there are."""


class Stage:
    """Plays episodes for training, validation, test and demonstration alike."""

    def __init__(self, environment: TextEnvironment, chat: ChatFormat, limits: Limits) -> None:
        self._chat, self._limits = chat, limits
        self._pool = EnvPool(
            environment, limits.concurrent, step_timeout=limits.step_timeout, reset_timeout=limits.reset_timeout
        )
        self._attached = False

    def attach(self, engine: Engine, policy: CausalLMPolicy) -> None:
        """Give the engine its memory, once."""
        if not self._attached:
            engine.attach(policy, self._limits.concurrent, self._limits.context)
            self._attached = True

    def check(self, tasks: Sequence[Task], max_tokens: int, demonstrated: bool) -> None:
        """Begin an episode of each task, or of as many spread over them as are played at once, and see if it can be begun.

        Raises:
            BadInput: the context is too short for a first message, a task cannot be begun at all, or nobody demonstrates.
        """
        collector = Collector(self._pool, self._chat, self._limits, max_tokens)
        collector.check(tasks[:: -(-len(tasks) // self._limits.concurrent)], demonstrated)

    def first_observations(self, tasks: Sequence[Task]) -> list[str | None]:
        """Of each task; None where an episode cannot be begun."""
        return self._pool.first_observations(tasks)

    def play(self, jobs: Sequence[Job], player: Player, max_tokens: int, progress: Progress) -> list[Episode]:
        """Episodes in the order of the jobs."""
        done = 0

        def ended(count: int) -> None:
            nonlocal done
            done += count
            progress("playing", done, len(jobs))

        collector = Collector(self._pool, self._chat, self._limits, max_tokens, ended)
        return collector.collect(jobs, player)

    def evaluate(
        self,
        tasks: Sequence[Task],
        player: Player,
        sampling: Sampling,
        seed: int,
        progress: Progress,
        samples: int = 1,
        retries: int = 0,
    ) -> list[Episode]:
        """Some episodes of each task; the same random numbers whatever was played before, and the first ones always first.

        Args:
            retries: new attempts at an episode whose environment failed.

        Returns:
            An episode for each task and sample, then the failed attempts that were made again.
        """
        jobs = []
        for task in tasks:
            key = ("evaluation", seed, task.family, task.split, task.id)
            jobs += [Job(task, member, (*key, member) if member else key) for member in range(samples)]
        episodes, failures = self.play(jobs, player, sampling.max_tokens, progress), []
        for attempt in range(1, retries + 1):
            open_ = [i for i, e in enumerate(episodes) if e.stop.is_failure and not has_no_player(e)]
            again = [replace(jobs[i], key=(*jobs[i].key, "attempt", attempt), attempt=attempt) for i in open_]
            failures += [episodes[i] for i in open_]
            for i, episode in zip(open_, self.play(again, player, sampling.max_tokens, progress), strict=True):
                episodes[i] = episode
        return episodes + failures

    def within(self, limits: Limits) -> Stage:
        """The same world and engine with another number of turns."""
        other = copy(self)
        other._limits = limits
        return other

    def close(self) -> None:
        """End every environment process."""
        self._pool.close()
