"""Measure a policy on the tasks of a split."""

from __future__ import annotations

from lit_agents.algorithm.base import AgentModule
from lit_agents.evaluation.result import Conditions, Result
from lit_agents.reward.checked import worth
from lit_agents.rollout.agents import Player, PolicyPlayer
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.types import Episode, TurnRewards


def measure(
    data: RolloutDataModule, module: AgentModule, player: Player, samples: int = 1, split: str = "test"
) -> tuple[Result, list[Episode], list[TurnRewards]]:
    """Play every test task, or those of another split, with the evaluation's sampling and random numbers of the seed alone.

    Every process of a run plays them all, with the same result.
    """
    tasks = data.split(split)
    data.engine.refresh()
    how = (data.evaluation, data.seed, data.on_progress, samples, data.schedule.retries)
    episodes = data.open(module.policy).evaluate(tasks, player, *how)
    data.engine.rest()
    rewards = [worth(data.reward, e) for e in episodes if not e.stop.is_failure]
    return Result.of(episodes, rewards, conditions_of(data, split)), episodes, rewards


def conditions_of(data: RolloutDataModule, split: str = "test") -> Conditions:
    """What a result on the tasks of a split depends on."""
    return Conditions.of(data.environment, data.tasks, data.split(split), data.limits, data.evaluation, data.seed)


def policy_player(data: RolloutDataModule, module: AgentModule, steps: int) -> Player:
    """The policy as it is evaluated, after so many optimizer steps."""
    return PolicyPlayer(data.engine, module.policy.chat, data.evaluation, version=steps)
