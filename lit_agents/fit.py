"""Train: ``python -m lit_agents.fit --config conf/textworld/quickstart.yaml``.

Measures the untouched model, or what ``--start_from`` names, on the test tasks, imitates the expert if ``sft`` is set, measures,
learns by RL, measures the checkpoint that was best on the validation tasks, and leaves everything in a run folder.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import SIGTERMException

import lit_agents
from lit_agents.algorithm.checkpoint import read_checkpoint, refuse_other
from lit_agents.algorithm.module import AgentModule
from lit_agents.algorithm.sft import SFT
from lit_agents.callbacks.early_warning import EarlyWarning
from lit_agents.callbacks.kept_weights import KeptWeights
from lit_agents.callbacks.memory import MemoryPreflight
from lit_agents.callbacks.progress import Bar, TerminalProgress
from lit_agents.callbacks.recorder import EpisodeRecorder, mark_in
from lit_agents.callbacks.trained import TrainedTokens
from lit_agents.cli import AgentCLI, SupervisedStage, quiet, run_command
from lit_agents.errors import BadInput
from lit_agents.evaluate import checkpoint_of, measure, policy_player
from lit_agents.evaluation.report import draw_curve, print_table
from lit_agents.evaluation.result import Result
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.run_folder import Mark, RunFolder, is_first

STAGES = ("base", "sft", "rl")
TERMINATED = 143
"""Exit code after SIGTERM, as in a shell."""
VERSIONS = ("torch", "lightning", "transformers", "peft")


class FitCLI(AgentCLI):
    """What `AgentCLI` parses, and where the run is kept."""

    command = "fit"
    checkpoint_help = "go on from a last.ckpt of a run folder; `last`: from the newest of --run, or of the newest run"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """See `AgentCLI`."""
        super().add_arguments_to_parser(parser)
        parser.add_argument("--run", type=str | None, default=None, help="run folder instead of runs/<name>-<number>")


@dataclass
class Run:
    """One run of one configuration, stage after stage."""

    cli: FitCLI
    folder: RunFolder
    checkpoint: Path | None
    """Where to go on; None begins."""
    results: dict[str, Result] = field(default_factory=dict)
    """Of the test tasks, by stage."""
    marks: dict[str, Mark] = field(default_factory=dict)
    """How long the files were when a result was written."""
    cut: Mark | None = None
    """Where the files are cut before the run goes on; None for a run that begins."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bar: Bar = field(default_factory=Bar)
    start: dict[str, Any] | None = None
    """Another run's checkpoint, to begin with."""
    warnings: list[str] = field(default_factory=list)
    """What was said of the stage in which the policy plays."""

    def go(self) -> dict[str, Result]:
        """All stages; those that are inside the checkpoint are skipped."""
        data, module, sft = self.cli.datamodule, self.cli.model, self.cli.value("sft")
        data.on_progress = self.bar.show
        module.policy.load()
        module.policy.to(self.device)  # the engine makes its caches where the weights are
        if self.start:
            module.restore(self.start)
            data.ledger.go_on_from(self.start[type(data).__qualname__]["ledger"], first=is_first())
        data.open(module.policy)
        self.test("base", module, 0)
        if sft and not module.demonstrated:
            self.supervise(sft, data, module)
        if module.demonstrated:
            self.train("sft", module, data)
        elif self.cli.value("trainer").max_epochs != 0:
            self.train("rl", module, data)
        return self.results

    def supervise(self, stage: SupervisedStage, data: RolloutDataModule, module: AgentModule) -> None:
        """The supervised stage: same policy, same world, same ledger, an optimizer of its own."""
        if module.kl.reference == "base":
            module.configure_model()
            module.keep_reference()
        imitator = SFT(module.policy, stage.optimizer)
        demonstrations = data.demonstrations(stage.demonstrations, stage.minibatches)
        changes = {"max_epochs": stage.epochs, "limit_val_batches": 0, "max_steps": -1}
        self.train("sft", imitator, demonstrations, **changes)

    def train(self, name: str, module: AgentModule, data: RolloutDataModule, **changes: Any) -> None:
        """One stage, and what it came to on the test tasks."""
        at = self.checkpoint.parent.name if self.checkpoint else None
        if at and STAGES.index(at) > STAGES.index(name):
            return
        where = self.folder.checkpoints(name)
        best = ModelCheckpoint(where, "best", monitor="validation/success", mode="max", enable_version_counter=False)
        last = ModelCheckpoint(where, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        recorder = EpisodeRecorder(data, self.folder, name)
        watchers: list[Any] = [TrainedTokens(self.folder, name), recorder]
        watchers.append(TerminalProgress(data, recorder, self.bar, name))
        warning = EarlyWarning(self.cli.value("watch"), lambda: recorder.row)
        watchers += [MemoryPreflight()] if self.cli.value("preflight") else []
        if changes.get("limit_val_batches") != 0:
            watchers.append(warning)
            watchers.append(best)  # before the one that writes down which is best
            watchers += KeptWeights.every(self.cli.value("keep_weights"), where)
        watchers.append(last)
        trainer = self.cli.trainer_for(watchers, default_root_dir=str(self.folder.path), **changes)
        handler = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=self.checkpoint if at == name else None, weights_only=True)
        except SystemExit as error:  # Lightning turns Ctrl-C into an exit, and is deaf to it from then on
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from error
        steps = trainer.global_step
        if best.best_model_path:
            steps = module.restore(read_checkpoint(Path(best.best_model_path)))
        self.warnings += warning.said
        if recorder.trained:
            self.results.pop(name, None)
        self.test(name, module, steps)

    def test(self, name: str, module: AgentModule, steps: int) -> None:
        """Measure on the test tasks, unless a run that was interrupted later already has."""
        if name in self.results:
            return
        data = self.cli.datamodule
        module.policy.to(self.device)  # Lightning leaves it on the CPU
        with data.ledger.clock(f"test/{name}"):
            self.results[name], episodes, rewards = measure(data, module, policy_player(data, module, steps))
        self.folder.add_episodes(f"test/{name}", 0, episodes, rewards)
        self.marks[name] = self.folder.mark()
        self.folder.write_json("summary.json", self.summary())
        self.folder.write_json("ledger.json", data.ledger.total())

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        return {
            "name": self.cli.value("name"),
            "algorithm": type(self.cli.model).__name__,
            "weights": self.cli.model.policy.identity["weights"],
            "start_from": self.cli.value("start_from"),
            "seed": self.cli.datamodule.seed,
            "versions": {"lit_agents": lit_agents.__version__} | {package: version(package) for package in VERSIONS},
            "success": {name: result.as_json() for name, result in self.results.items()},
            "warnings": self.warnings,
            "written": {name: asdict(mark) for name, mark in self.marks.items()},
        }


def open_run(cli: FitCLI) -> Run:
    """A new run folder, not made yet, or the one a checkpoint lies in.

    Raises:
        BadInput: there is no such folder, it is taken, or the checkpoint is of something else.
    """
    name, chosen, checkpoint = (cli.value(key) for key in ("name", "run", "ckpt_path"))
    if not checkpoint:
        run = Run(cli, RunFolder.find(name, chosen), None)
        if is_first():
            return run
        run.results, run.marks = _known(run.folder, len(STAGES))  # the process that started this one measured the base
        return run
    folder, path = RunFolder.reopen(name, chosen, checkpoint)
    at = path.parent.name if path else "base"
    if at not in STAGES:
        raise BadInput(f"--ckpt_path {path}", f"{at} is no stage of a run.", "Name one in sft or rl.")
    mark = Mark()
    if path:
        content = read_checkpoint(path)
        module = cli.model if at == "rl" or cli.model.demonstrated else SFT(cli.model.policy)
        refuse_other(content, module.identity())
        mark = mark_in(content) or mark
    results, marks = _known(folder, STAGES.index(at))
    newest, written = _known(folder, STAGES.index(at) + 1)
    if at in written and written[at] >= mark:  # else the stage went on after it was measured
        results, marks = newest, written
    return Run(cli, folder, path, results, marks, max([mark, *marks.values()]))


def _known(folder: RunFolder, stages: int) -> tuple[dict[str, Result], dict[str, Mark]]:
    """The results of the first stages that are in a run folder."""
    summary = folder.read_json("summary.json")
    success, written = summary.get("success", {}), summary.get("written", {})
    known = [name for name in STAGES[:stages] if name in success and name in written]
    return {n: Result.from_json(success[n]) for n in known}, {n: Mark(**written[n]) for n in known}


def check(cli: AgentCLI) -> torch.device:
    """Refuse what cannot work before anything is made or loaded; the device of this process.

    Raises:
        BadInput: by the name of the file or flag.
    """
    data, module, sft = cli.datamodule, cli.model, cli.value("sft")
    device, processes = cli.machine()
    data.schedule.check(module.compares_group, processes, data.limits.context)
    if module.demonstrated and sft:
        raise BadInput("sft", "the model is itself the supervised stage.", "Set sft to null.")
    if sft and sft.demonstrations % processes:
        raise BadInput("sft.demonstrations", f"cannot be shared by {processes} processes.", "Use a multiple of it.")
    schedule, count = data.schedule, data.counts["train"]
    every, epochs = (cli.value("trainer")[key] for key in ("check_val_every_n_epoch", "max_epochs"))
    if every and epochs and 0 < epochs < every:
        reason = f"{every} is more than trainer.max_epochs={epochs}, so no checkpoint would be chosen on validation."
        raise BadInput("trainer.check_val_every_n_epoch", reason, f"Set it to {epochs} or less.")
    if schedule.tasks > count:
        reason = f"{schedule.tasks} in every iteration, but there are {count} (data.train_tasks)."
        raise BadInput("data.schedule.tasks", reason, "Lower it, or raise data.train_tasks.")
    if module.demonstrated and (schedule.tasks, schedule.group_size) != (count, 1):
        reason = f"{schedule.tasks} x {schedule.group_size}; demonstrations are collected once, one of each of {count} tasks."
        raise BadInput("data.schedule.tasks x group_size", reason, "Set tasks to data.train_tasks and group_size to 1.")
    return device


@quiet()
def fit(args: Sequence[str] | None = None) -> Run:
    """The command as a function: trains, and returns the run with its results."""
    begun = time.perf_counter()
    cli = FitCLI(args)
    data, module, sft = cli.datamodule, cli.model, cli.value("sft")
    device = check(cli)
    run = open_run(cli)
    run.device, run.start = device, checkpoint_of(cli, "start_from")
    needed = {"sft" if module.demonstrated else "train": None, "validation": None, "test": None}
    try:
        data.preflight(module.policy.chat, **needed, **({"sft": sft.demonstrations} if sft else {}))
        run.folder.create()
        if run.cut is not None:
            later = STAGES[STAGES.index(run.checkpoint.parent.name) + 1 :] if run.checkpoint else STAGES
            run.folder.cut(run.cut, later)
        run.folder.keep_config(cli.config_text())
        begins = " (nothing to go on from: it begins)" if cli.value("ckpt_path") and not run.checkpoint else ""
        run.bar.console.print(f"run folder: {run.folder.path}{begins}", highlight=False, soft_wrap=True)
        run.go()
    except KeyboardInterrupt:
        _say_how_to_go_on(run.folder)
        raise
    except SIGTERMException as error:  # a scheduler's word; of itself it would end like a success
        _say_how_to_go_on(run.folder)
        raise SystemExit(TERMINATED) from error
    finally:
        run.bar.hide()
        data.close()
    if is_first():
        minutes = (time.perf_counter() - begun) / 60
        print_table(f"{next(iter(run.results.values())).conditions.sentence}, {minutes:.1f} min", run.results)
        drawn = draw_curve(run.folder.path / "metrics.csv", run.folder.path / "curve.png", run.results)
        print(f"run folder: {run.folder.path}" + ("" if drawn else " (no curve: nothing was trained)"))
    return run


def _say_how_to_go_on(folder: RunFolder) -> None:
    if not is_first():
        return
    if not (folder.path / "config.yaml").exists():
        print("\ninterrupted before the run began; start it again.", file=sys.stderr)
        return
    command = f"python -m lit_agents.fit --config {folder.path}/config.yaml --run {folder.path} --ckpt_path last"
    print(f"\ninterrupted; {folder.path} is usable. Go on with\n  {command}", file=sys.stderr)


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    return run_command(lambda: fit(args))


if __name__ == "__main__":
    sys.exit(main())
