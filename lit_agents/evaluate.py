"""Measure: ``python -m lit_agents.evaluate --config C [--ckpt_path P] [--data.tasks SPEC]``.

Plays the test tasks once each and prints the policy's row between its floor, random admissible actions, and its ceiling,
the environment's expert. Without a checkpoint the policy is the untouched model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lit_agents.algorithm.module import AgentModule
from lit_agents.cli import AgentCLI, run_command
from lit_agents.evaluation.report import print_table
from lit_agents.evaluation.result import Conditions, Result
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.players import ExpertPlayer, Player, PolicyPlayer, RandomPlayer
from lit_agents.types import Episode, TurnRewards


def measure(
    data: RolloutDataModule, module: AgentModule, player: Player, split: str = "test"
) -> tuple[Result, list[Episode], list[TurnRewards]]:
    """Play every task of a split once, with the evaluation's sampling and random numbers that depend on the seed alone."""
    tasks = data.split(split)
    with data.ledger.clock("testing"):
        data.engine.refresh()
        episodes = data.open(module.policy).evaluate(tasks, player, data.evaluation, data.seed, data.on_progress)
    rewards = [data.reward(e) for e in episodes if not e.stop.is_failure]
    conditions = Conditions.of(data.environment, data.tasks, tasks, data.limits, data.evaluation, data.seed)
    return Result.of(episodes, rewards, conditions), episodes, rewards


def policy_player(data: RolloutDataModule, module: AgentModule) -> Player:
    """The policy as it is evaluated."""
    return PolicyPlayer(data.engine, module.policy.chat, data.evaluation, version=0)


def evaluate(args: Sequence[str] | None = None) -> dict[str, Result]:
    """The command as a function."""
    cli = AgentCLI(args)
    data, module, checkpoint = cli.datamodule, cli.model, cli.value("ckpt_path")
    try:
        data.preflight(module.policy.chat, test=None)
        data.open(module.policy)
        module.configure_model()
        if checkpoint:
            module.restore(Path(checkpoint))
        chat = module.policy.chat
        players = {"random": RandomPlayer(chat), "policy": policy_player(data, module), "expert": ExpertPlayer(chat)}
        results = {name: measure(data, module, player)[0] for name, player in players.items()}
    finally:
        data.close()
    title = (
        f"{data.tasks}, {data.limits.turns} turns, {checkpoint or 'untouched model'}, {results['policy'].conditions}"
    )
    print_table(title, results)
    return results


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    return run_command(lambda: bool(evaluate(args)) - 1)


if __name__ == "__main__":
    sys.exit(main())
