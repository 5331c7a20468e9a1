"""The configuration of a run: typed YAML, overrides on the command line, and the few links between its parts."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jsonargparse import set_parsing_settings
from jsonargparse.typing import NonNegativeInt
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, OptimizerCallable
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.checkpoint import AtomicCheckpoints, read_checkpoint, refuse_other
from lit_agents.algorithm.micro_batches import refuse_accumulation, refuse_skipped
from lit_agents.algorithm.sft import SFT
from lit_agents.distributed import is_first
from lit_agents.errors import BadInput, printable, refuse_seed
from lit_agents.rollout.budget import Budget
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.eval_set import Elsewhere
from lit_agents.run.callbacks.health import Watch
from lit_agents.run.cli_errors import refusal, wrapped
from lit_agents.run.overrides import files_first
from lit_agents.run.scheduler import without_requeue
from lit_agents.run.trainer_checks import refuse_callbacks, refuse_settings
from lit_agents.system.command import quiet

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


@dataclass(frozen=True)
class SupervisedStage:
    """Imitation of the environment's expert before RL."""

    demonstrations: int | None = None
    """Expert episodes, on tasks no other stage uses; null for as many as the budget buys."""
    epochs: int = 3
    """Passes over them."""
    minibatches: int = 8
    """Optimizer steps per pass."""
    optimizer: OptimizerCallable = torch.optim.AdamW
    """Makes the optimizer of this stage."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("demonstrations", "epochs", "minibatches"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise BadInput(f"sft.{name}", f"{value} is below 1.", "Set sft to null for no such stage.")
        if self.demonstrations and self.minibatches > self.demonstrations:
            reason = f"{self.minibatches} minibatches cannot each hold one of {self.demonstrations} demonstrations."
            raise BadInput("sft.minibatches", reason, "Lower it, or raise sft.demonstrations.")


class ExactLightningParser(LightningArgumentParser):
    """As `lit_agents.run.overrides.ExactParser`, for Lightning's classes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})


class AgentCLI(LightningCLI):
    """Parses and instantiates; each command then calls what it needs. The Trainer is made once per stage, by `trainer_for`."""

    datamodule: RolloutDataModule
    model: AgentModule
    command: ClassVar[str]
    checkpoint_help: ClassVar[str]

    def __init__(self, args: Sequence[str] | None) -> None:
        parser = {
            "prog": f"python -m lit_agents.{self.command}",
            "description": "Train, evaluate and study language-model agents.",
            "exit_on_error": False,
        }
        set_parsing_settings(docstring_parse_attribute_docstrings=True)  # what a field says of itself is its help
        given, left_out = files_first(sys.argv[1:] if args is None else args)
        try:
            with quiet():
                super().__init__(
                    AgentModule,
                    RolloutDataModule,
                    subclass_mode_model=True,
                    save_config_callback=None,
                    seed_everything_default=1,
                    auto_configure_optimizers=False,
                    run=False,
                    args=given,
                    parser_class=ExactLightningParser,
                    parser_kwargs=parser,
                )
        except argparse.ArgumentError as error:
            raise refusal(str(error), self.command) from error
        for sentence in left_out if is_first() else ():
            print(printable(sentence), file=sys.stderr)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Besides model, data and trainer."""
        parser.add_argument("--name", type=str, default="run", help="what run folders are called: runs/<name>-<number>")
        parser.add_argument("--sft", type=SupervisedStage | None, default=None, help="supervised stage before RL")
        spending = (
            "what both stages may cost; it decides sft.demonstrations and trainer.max_epochs, which are then null"
        )
        parser.add_argument("--budget", type=Budget | None, default=None, help=spending)
        elsewhere = "more places where every stage is measured, by name"
        parser.add_argument("--elsewhere", type=dict[str, Elsewhere], default={}, help=elsewhere)
        start = (
            "a .ckpt of another run, e.g. of SFT alone: its weights are what is begun with, its costs are in the ledger"
        )
        parser.add_argument("--start_from", type=str | None, default=None, help=start)
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=self.checkpoint_help)
        parser.add_argument("--watch", type=Watch, default=Watch(), help="early warnings in RL")
        preflight = "run the longest possible micro-batch through one training step first, and report its memory"
        parser.add_argument("--preflight", type=bool, default=False, help=preflight)
        kept = "keep the weights after every n-th iteration for lit_agents.audit to compute with; 0 for none"
        parser.add_argument("--keep_weights", type=NonNegativeInt, default=0, help=kept)
        parser.link_arguments("seed_everything", "data.seed")
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

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Into ``self.config``; the seed is looked at before anything is seeded."""
        self.config = parser.parse_args(args)
        refuse_seed("seed_everything", int(self.config["seed_everything"]))

    def instantiate_classes(self) -> None:
        """Everything but the Trainer; no model is loaded by it."""
        try:
            self.config_init = self.parser.instantiate_classes(self.config)
        except ValueError as error:
            raise wrapped(error) or refusal(str(error), self.command) from error
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")

    def value(self, key: str) -> Any:
        """An argument as given."""
        return self._get(self.config_init, key)

    def trainer_for(self, callbacks: list[Any], **changes: Any) -> Trainer:
        """A Trainer as configured, with these callbacks besides its own.

        Raises:
            BadInput: gradient accumulation, or minibatches that are left out.
        """
        settings = {**self.value("trainer").as_dict(), **changes}
        refuse_accumulation(settings["accumulate_grad_batches"])
        own, plugins = (_listed(settings.pop(key)) for key in ("callbacks", "plugins"))
        plugins = without_requeue(plugins)
        if isinstance(settings["strategy"], str) and settings["strategy"].startswith(("auto", "ddp")):
            plugins = [*plugins, AtomicCheckpoints()]  # the sharded strategies write in a way of their own
        trainer = Trainer(
            **settings,
            callbacks=[*copy.deepcopy(own), *callbacks],  # each stage has callbacks of its own
            plugins=plugins,
        )
        refuse_skipped(trainer.limit_train_batches)
        return trainer

    def machine(self) -> tuple[torch.device, int]:
        """This process's device and the number of processes, as the Trainer will have them.

        Raises:
            BadInput: trainer settings that cannot work, long before a Trainer is needed.
        """
        settings = self.value("trainer").as_dict()
        refuse_settings(settings)
        refuse_callbacks(_listed(settings["callbacks"]), bool(self.value("sft")), bool(settings["logger"]))
        try:
            trainer = self.trainer_for([], logger=False)
        except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
            if isinstance(error, BadInput):
                raise
            reason = " ".join(str(error).split())
            raise BadInput("trainer", reason, "Change this setting of the trainer.") from error
        if isinstance(trainer.strategy, SHARDED):
            reason = f"{type(trainer.strategy).__name__} splits the weights, and engines sample from whole ones."
            raise BadInput("trainer.strategy", reason, "Use ddp; for less memory, data.schedule.micro_batch_tokens.")
        self.model.policy.compute_in(trainer.precision)
        return trainer.strategy.root_device, trainer.world_size

    def config_text(self) -> str:
        """What reproduces the run: everything but where it was written and what it continued."""
        config = self.config.clone()
        for key in ("config", "run", "ckpt_path", "output", "allow_different"):
            config.pop(key, None)
        return str(self.parser.dump(config, skip_none=False))


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


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


class FitCLI(AgentCLI):
    """What `AgentCLI` parses, and where the run is kept."""

    command = "fit"
    checkpoint_help = "go on from a last.ckpt of a run folder; `last`: from the newest of --run, or of the newest run"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """See `AgentCLI`."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--run", type=str | None, default=None, help="run folder instead of runs/<name>-<number>")
        allow = "go on under other conditions than the run began under, and mark what follows"
        parser.add_argument("--allow_different", type=bool, default=False, help=allow)
