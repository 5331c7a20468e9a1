"""What one call of `lit_agents.evaluate` measures and compares."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from lit_agents.errors import BadInput
from lit_agents.evaluation.evaluate import measure, policy_player
from lit_agents.evaluation.result import Conditions, Result, differences
from lit_agents.evaluation.stats.pass_at_k import name_of
from lit_agents.rollout.agents import ExpertPlayer, RandomPlayer, has_no_player
from lit_agents.rollout.held_out import Seen, seen_by
from lit_agents.run.cli import AgentCLI, checkpoint_of
from lit_agents.types import Episode


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
