"""Measure: ``python -m lit_agents.evaluate --config C [--ckpt_path P] [--samples K] [--against Q] [--output FILE.json]``.

Plays the test tasks and prints the policy's row between its floor, random admissible actions, and its ceiling, the
environment's expert. Without a checkpoint the policy is the untouched model. ``--against`` compares it task by task with
another checkpoint, or with the numbers of an earlier evaluation if they were measured under the same conditions.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.checkpoint import read_checkpoint, refuse_other
from lit_agents.algorithm.sft import SFT
from lit_agents.errors import BadInput, printable
from lit_agents.evaluation.console import print_table
from lit_agents.evaluation.failures import refuse_broken
from lit_agents.evaluation.result import Conditions, Result, differences
from lit_agents.evaluation.stats.paired import compare
from lit_agents.evaluation.stats.pass_at_k import name_of
from lit_agents.reward.checked import worth
from lit_agents.rollout.agents import ExpertPlayer, Player, PolicyPlayer, RandomPlayer, has_no_player
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.held_out import Seen, seen_by
from lit_agents.run.callbacks.progress import Bar
from lit_agents.run.cli import AgentCLI, quiet, run_command
from lit_agents.system.files import write_whole
from lit_agents.types import Episode, TurnRewards


class EvaluateCLI(AgentCLI):
    """What `fit` takes, so that one file serves both, and where the numbers go."""

    command = "evaluate"
    checkpoint_help = "a .ckpt of a run folder; without one the policy is the untouched model"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """See `AgentCLI`."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--output", type=str | None, default=None, help="a .json file for the numbers")
        parser.add_argument("--samples", type=PositiveInt, default=1, help="episodes of each task: avg@k and pass@k")
        against = "a .ckpt, or the --output of an earlier evaluation, to compare with task by task"
        parser.add_argument("--against", type=str | None, default=None, help=against)
        allow = "compare with what was measured under other conditions too"
        parser.add_argument("--allow_different", type=bool, default=False, help=allow)


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


def checkpoint_of(cli: AgentCLI, flag: str) -> dict[str, Any] | None:
    """The content of the checkpoint a flag names, of either stage of such a run; read before any model is loaded.

    Raises:
        BadInput: there is none, it cannot be read, or it was written by another algorithm or for another model.
    """
    named = cli.value(flag)
    if named is None:
        return None
    path = Path(named)
    if not path.is_file():
        raise BadInput(f"--{flag} {named}", "there is no such file.", "Name a .ckpt file of a run folder.")
    content = read_checkpoint(path, f"--{flag}")
    written = content.get("lit_agents", {}).get("identity", {}).get("algorithm")
    of_stage = SFT(cli.model.policy) if cli.value("sft") and written == SFT.__qualname__ else cli.model
    identity = of_stage.identity()
    del identity["kl"]  # how it was trained, not what it is
    if flag != "ckpt_path":
        del identity["algorithm"]  # a comparison may be of two algorithms, and one may begin where another ended
    refuse_other(content, identity, f"--{flag}")
    return content


@dataclass(frozen=True)
class Evaluation:
    """What one call of the command measures."""

    cli: EvaluateCLI
    checkpoint: dict[str, Any] | None
    """What is measured, of another run if it begins with one; None for the untouched model."""
    other: dict[str, Any] | None
    """The checkpoint to compare with."""
    earlier: Result | None
    """The numbers to compare with."""

    @staticmethod
    def of(cli: EvaluateCLI) -> Evaluation:
        """Read what was named, and refuse what cannot be measured.

        Raises:
            BadInput: by the name of the flag.
        """
        output, against = cli.value("output"), cli.value("against")
        if output and not Path(output).parent.is_dir():
            raise BadInput(f"--output {output}", "its folder does not exist.", "Make it first, or name another file.")
        if output and (Path(output).is_dir() or not os.access(Path(output).parent, os.W_OK)):
            raise BadInput(f"--output {output}", "no such file can be written.", "Name another file.")
        if cli.value("samples") > 1 and cli.datamodule.evaluation.temperature == 0:
            reason = "with data.evaluation.temperature=0 all episodes of a task are the same one."
            raise BadInput(f"--samples {cli.value('samples')}", reason, "Leave it out, or raise the temperature.")
        if cli.value("allow_different") and not (against or "").endswith(".json"):
            reason = "there are no earlier numbers whose conditions could differ."
            raise BadInput("--allow_different", reason, "Leave it out, or name a .json file with --against.")
        if against and against.endswith(".json"):
            other, earlier = None, earlier_result(Path(against))
        else:
            other, earlier = checkpoint_of(cli, "against"), None
        checkpoint = checkpoint_of(cli, "ckpt_path")
        return Evaluation(cli, checkpoint or checkpoint_of(cli, "start_from"), other, earlier)

    def measured(self) -> dict[str, tuple[Result, list[Episode]]]:
        """Every row of the table that is played now, with its episodes."""
        data, module, samples = self.cli.datamodule, self.cli.model, self.cli.value("samples")
        chat = module.policy.chat
        module.configure_model()
        steps = module.restore(self.checkpoint) if self.checkpoint else 0
        module.policy.to(self.cli.machine()[0])
        data.open(module.policy)
        rows = {
            "random": measure(data, module, RandomPlayer(chat), samples),
            "policy": measure(data, module, policy_player(data, module, steps), samples),
            "expert": measure(data, module, ExpertPlayer(chat)),
        }
        if self.other:
            player = policy_player(data, module, module.restore(self.other))
            rows["against"] = measure(data, module, player, samples)
        return {name: (row[0], row[1]) for name, row in rows.items() if not all(map(has_no_player, row[1]))}

    def seen(self) -> dict[str, Seen]:
        """By flag, what the checkpoint that it names has seen."""
        measured = "ckpt_path" if self.cli.value("ckpt_path") else "start_from"
        return {
            name: seen_by(c, type(self.cli.datamodule))
            for name, c in ((measured, self.checkpoint), ("against", self.other))
        }

    def comparable(self, mine: Conditions) -> list[str]:
        """In what the earlier numbers differ.

        Raises:
            BadInput: in anything, and that was not allowed.
        """
        if self.earlier is None:
            return []
        found = differences(asdict(self.earlier.conditions), asdict(mine))
        if found and not self.cli.value("allow_different"):
            way_out = "Measure both in the same way, or give --allow_different true."
            raise BadInput(f"--against {self.cli.value('against')}", f"its {'; its '.join(found)} here.", way_out)
        if not {name_of(task) for task in self.cli.datamodule.split("test")} & set(self.earlier.by_task):
            reason = "it has no task in common with what would be played."
            raise BadInput(f"--against {self.cli.value('against')}", reason, "Measure both on the same tasks.")
        return found


def earlier_result(path: Path) -> Result:
    """The policy's numbers in a file that ``--output`` wrote.

    Raises:
        BadInput: there is no such file, or it was not written by this command.
    """
    try:
        return Result.from_json(json.loads(path.read_text(encoding="utf-8"))["success"]["policy"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it cannot be read as the numbers of an evaluation ({type(error).__name__}: {error})."
        raise BadInput(f"--against {path}", reason, "Name a file that `evaluate --output` has written.") from error


@quiet()
def evaluate(args: Sequence[str] | None = None) -> dict[str, Result]:
    """The command as a function."""
    cli, bar = EvaluateCLI(args), Bar()
    cli.machine()
    wanted, data = Evaluation.of(cli), cli.datamodule
    try:
        cli.model.policy.check_context(data.limits.context)
        sets = data.preflight(cli.model.policy.chat, test=None)
        sets += data.other_splits("test", demonstrated=bool(cli.value("sft")))
        data.keep_apart(sets, **wanted.seen())
        wanted.comparable(conditions_of(data))
        data.on_progress = bar.show
        rows = wanted.measured()
    finally:
        bar.hide()
        data.close()
    results = {name: result for name, (result, _) in rows.items()}
    if wanted.earlier:
        results["against"] = wanted.earlier
    what = cli.value("ckpt_path") or cli.value("start_from") or "untouched model"
    title = f"{results['policy'].conditions.sentence}\npolicy: {what}"
    print_table(title + (f"\nagainst: {cli.value('against')}" if "against" in results else ""), results)
    for name, (_, episodes) in rows.items():
        if error := next((e.error for e in episodes if e.stop.is_failure), ""):
            print(printable(f"an error of {name}: ... {error[-300:]}"))
    for name in [name for name in ("policy", "against") if name in rows]:  # the others' failures are in the table
        refuse_broken(rows[name][1], data.schedule.max_failures, name, "measure again")
    content = {"policy": what, "success": {name: result.as_json() for name, result in results.items()}}
    if set(results["policy"].by_task) & set(results["against"].by_task if "against" in results else ()):
        found = compare(results["policy"].by_task, results["against"].by_task)
        different = wanted.comparable(results["policy"].conditions)
        print(f"policy - against, paired by task: {found.sentence}")
        for difference in different:
            print(printable(f"measured under other conditions: against's {difference}"))
        content |= {"against": cli.value("against"), "paired": asdict(found), "different": different}
    if output := cli.value("output"):
        write_whole(Path(output), json.dumps(content, indent=2) + "\n")
    return results


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    return run_command(lambda: evaluate(args))


if __name__ == "__main__":
    sys.exit(main())
