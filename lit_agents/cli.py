"""The configuration of a run: typed YAML, overrides on the command line, and the few links between its parts."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, OptimizerCallable

from lit_agents.algorithm.module import AgentModule
from lit_agents.errors import BadInput
from lit_agents.rollout.datamodule import RolloutDataModule


@dataclass(frozen=True)
class SupervisedStage:
    """Imitation of the environment's expert before RL."""

    demonstrations: int = 60
    """Expert episodes, on tasks no other stage uses."""
    epochs: int = 3
    """Passes over them."""
    minibatches: int = 8
    """Optimizer steps per pass."""
    micro_batches: int = 1
    """Backward passes per optimizer step."""
    optimizer: OptimizerCallable = torch.optim.AdamW
    """Makes the optimizer of this stage."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("demonstrations", "epochs", "minibatches", "micro_batches"):
            if getattr(self, name) < 1:
                raise BadInput(
                    f"sft.{name}", f"{getattr(self, name)} is below 1.", "Set sft to null for no such stage."
                )


class AgentCLI(LightningCLI):
    """Parses and instantiates; each command then calls what it needs. The Trainer is made once per stage, by `trainer_for`."""

    datamodule: RolloutDataModule
    model: AgentModule

    def __init__(self, args: Sequence[str] | None) -> None:
        given = list(sys.argv[1:] if args is None else args)
        super().__init__(
            AgentModule,
            RolloutDataModule,
            subclass_mode_model=True,
            save_config_callback=None,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            run=False,
            args=given,
            parser_kwargs={"description": "Train, evaluate and study language-model agents."},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Besides model, data and trainer."""
        parser.add_argument("--name", type=str, default="run", help="what run folders are called: runs/<name>-<number>")
        parser.add_argument("--sft", type=SupervisedStage | None, default=None, help="supervised stage before RL")
        parser.add_argument("--run", type=str | None, default=None, help="run folder instead of runs/<name>-<number>")
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="a checkpoint, or last")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("data.schedule.micro_batches", "trainer.accumulate_grad_batches")
        parser.set_defaults(
            {
                "trainer.logger": False,
                "trainer.enable_progress_bar": False,
                "trainer.enable_model_summary": False,
                "trainer.num_sanity_val_steps": 0,
                "trainer.log_every_n_steps": 1,
                "trainer.accelerator": "auto",
                "trainer.devices": 1,
            }
        )

    def instantiate_classes(self) -> None:
        """Everything but the Trainer; no model is loaded by it."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")

    def value(self, key: str) -> Any:
        """An argument as given."""
        return self._get(self.config_init, key)

    def trainer_for(self, callbacks: list[Any], loggers: list[Any], **changes: Any) -> Trainer:
        """A Trainer as configured, with these callbacks and loggers besides its own."""
        settings = {**self.value("trainer").as_dict(), **changes}
        own = settings.pop("callbacks") or []
        logger = settings.pop("logger")
        own_loggers = (
            [] if isinstance(logger, bool) or logger is None else logger if isinstance(logger, list) else [logger]
        )
        own = copy.deepcopy(own if isinstance(own, list) else [own])  # each stage has callbacks of its own
        return Trainer(**settings, callbacks=[*own, *callbacks], logger=[*own_loggers, *loggers])

    def save_config(self, path: Path) -> None:
        """What reproduces the run: everything but where it was written and what it continued."""
        config = self.config.clone()
        for key in ("config", "run", "ckpt_path"):
            config.pop(key, None)
        self.parser.save(config, str(path), skip_check=True, overwrite=True, multifile=False)


def run_command(command: Callable[[], int]) -> int:
    """Run a command; what is wrong with its input is one paragraph, and 2 its exit code."""
    try:
        return command()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
