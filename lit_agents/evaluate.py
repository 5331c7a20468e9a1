"""Measure: ``python -m lit_agents.evaluate --config C [--ckpt_path P] [--data.tasks SPEC] [--output FILE.json]``.

Plays the test tasks once each and prints the policy's row between its floor, random admissible actions, and its ceiling,
the environment's expert. Without a checkpoint the policy is the untouched model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from lit_agents.algorithm.checkpoint import read_checkpoint, refuse_other
from lit_agents.algorithm.module import AgentModule
from lit_agents.algorithm.sft import SFT
from lit_agents.callbacks.progress import Bar
from lit_agents.cli import AgentCLI, quiet, run_command
from lit_agents.errors import BadInput
from lit_agents.evaluation.report import print_table
from lit_agents.evaluation.result import Conditions, Result
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.players import ExpertPlayer, Player, PolicyPlayer, RandomPlayer
from lit_agents.run_folder import write_whole
from lit_agents.types import Episode, TurnRewards


class EvaluateCLI(AgentCLI):
    """What `fit` takes, so that one file serves both, and where the numbers go."""

    command = "evaluate"
    checkpoint_help = "a .ckpt of a run folder; without one the policy is the untouched model"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """See `AgentCLI`."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--output", type=str | None, default=None, help="a .json file for the numbers")


def measure(
    data: RolloutDataModule, module: AgentModule, player: Player, split: str = "test"
) -> tuple[Result, list[Episode], list[TurnRewards]]:
    """Play every task of a split once, with the evaluation's sampling and random numbers that depend on the seed alone.

    Every process of a run plays them all, with the same result.
    """
    tasks = data.split(split)
    data.engine.refresh()
    episodes = data.open(module.policy).evaluate(tasks, player, data.evaluation, data.seed, data.on_progress)
    rewards = [data.reward(e) for e in episodes if not e.stop.is_failure]
    conditions = Conditions.of(data.environment, data.tasks, tasks, data.limits, data.evaluation, data.seed)
    return Result.of(episodes, rewards, conditions), episodes, rewards


def policy_player(data: RolloutDataModule, module: AgentModule, steps: int) -> Player:
    """The policy as it is evaluated, after so many optimizer steps."""
    return PolicyPlayer(data.engine, module.policy.chat, data.evaluation, version=steps)


def checkpoint_of(cli: AgentCLI) -> dict[str, Any] | None:
    """The content of the checkpoint that was named, of either stage of such a run; read before any model is loaded.

    Raises:
        BadInput: there is none, it cannot be read, or it was written by another algorithm or for another model.
    """
    named = cli.value("ckpt_path")
    if named is None:
        return None
    path = Path(named)
    if not path.is_file():
        raise BadInput(f"--ckpt_path {named}", "there is no such file.", "Name a .ckpt file of a run folder.")
    content = read_checkpoint(path)
    written = content.get("lit_agents", {}).get("identity", {}).get("algorithm")
    of_stage = SFT(cli.model.policy) if cli.value("sft") and written == SFT.__qualname__ else cli.model
    identity = of_stage.identity()
    del identity["kl"]  # how it was trained, not what it is
    refuse_other(content, identity)
    return content


@quiet()
def evaluate(args: Sequence[str] | None = None) -> dict[str, Result]:
    """The command as a function."""
    cli = EvaluateCLI(args)
    data, module, output, bar = cli.datamodule, cli.model, cli.value("output"), Bar()
    device, _ = cli.machine()
    if output and not Path(output).parent.is_dir():
        raise BadInput(f"--output {output}", "its folder does not exist.", "Make it first, or name another file.")
    checkpoint = checkpoint_of(cli)
    try:
        data.preflight(module.policy.chat, test=None)
        module.configure_model()
        steps = module.restore(checkpoint) if checkpoint else 0
        module.policy.to(device)
        data.open(module.policy)
        data.on_progress = bar.show
        chat = module.policy.chat
        players = {
            "random": RandomPlayer(chat),
            "policy": policy_player(data, module, steps),
            "expert": ExpertPlayer(chat),
        }
        results = {name: measure(data, module, player)[0] for name, player in players.items()}
        results = {name: result for name, result in results.items() if result.n or name == "policy"}
    finally:
        bar.hide()
        data.close()
    what = cli.value("ckpt_path") or "untouched model"
    print_table(f"{results['policy'].conditions.sentence}\npolicy: {what}", results)
    if output:
        content = {"policy": what, "success": {name: result.as_json() for name, result in results.items()}}
        write_whole(Path(output), json.dumps(content, indent=2) + "\n")
    return results


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    return run_command(lambda: evaluate(args))


if __name__ == "__main__":
    sys.exit(main())
