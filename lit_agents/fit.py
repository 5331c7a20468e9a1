"""Train: ``python -m lit_agents.fit --config conf/textworld/quickstart.yaml``.

Measures the untouched model on the test tasks, imitates the expert if ``sft`` is set, measures, learns by RL, measures the
checkpoint that was best on the validation tasks, and leaves everything in a run folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from lit_agents.algorithm.module import AgentModule
from lit_agents.algorithm.sft import SFT
from lit_agents.callbacks import EpisodeRecorder, TerminalProgress
from lit_agents.cli import AgentCLI, SupervisedStage, run_command
from lit_agents.evaluate import measure, policy_player
from lit_agents.evaluation.report import draw_curve, print_table
from lit_agents.evaluation.result import Result
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.run_folder import MetricsFile, RunFolder

STAGES = ("sft", "rl")


@dataclass
class Run:
    """One run of one configuration, stage after stage."""

    cli: AgentCLI
    folder: RunFolder
    metrics: MetricsFile
    results: dict[str, Result]
    checkpoint: Path | None
    """Where to go on; None begins."""

    def go(self) -> dict[str, Result]:
        """All stages; those that are inside the checkpoint are skipped."""
        data, module, sft = self.cli.datamodule, self.cli.model, self.cli.value("sft")
        self.test("base", module)
        if sft and not isinstance(module, SFT):
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
        demonstrations = data.demonstrations(stage.demonstrations, stage.minibatches, stage.micro_batches)
        self.train(
            "sft", imitator, demonstrations,
            max_epochs=stage.epochs, accumulate_grad_batches=stage.micro_batches, limit_val_batches=0,
        )  # fmt: skip

    def train(self, name: str, module: AgentModule, data: RolloutDataModule, **changes: Any) -> None:
        """One stage, and what it came to on the test tasks."""
        at = self.checkpoint.parent.name if self.checkpoint else None
        if at and STAGES.index(at) > STAGES.index(name):
            return
        self.metrics.stage = name
        where = self.folder.checkpoints(name)
        best = ModelCheckpoint(where, "best", monitor="validation/success", mode="max", enable_version_counter=False)
        last = ModelCheckpoint(where, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        watchers: list[Any] = [
            EpisodeRecorder(data, self.folder, self.metrics, name),
            TerminalProgress(data, name),
            last,
        ]
        if changes.get("limit_val_batches") != 0:
            watchers.append(best)
        trainer = self.cli.trainer_for(watchers, [self.metrics], **changes)
        with data.ledger.clock(name):
            try:
                trainer.fit(
                    module, datamodule=data, ckpt_path=self.checkpoint if at == name else None, weights_only=True
                )
            except SystemExit as error:  # Lightning turns Ctrl-C into an exit
                raise KeyboardInterrupt from error
        if best.best_model_path:
            module.restore(Path(best.best_model_path))
        self.test(name, module)

    def test(self, name: str, module: AgentModule) -> None:
        """Measure on the test tasks, unless a run that was interrupted later already has."""
        if name in self.results:
            return
        data = self.cli.datamodule
        self.results[name], episodes, rewards = measure(data, module, policy_player(data, module))
        self.folder.add_episodes(f"test/{name}", 0, episodes, rewards)
        self.folder.write_json("summary.json", {"success": {k: r.as_json() for k, r in self.results.items()}})
        self.folder.write_json("ledger.json", data.ledger.state_dict())


def open_run(cli: AgentCLI) -> Run:
    """A new run folder, or the one a checkpoint lies in."""
    name, chosen, checkpoint = (cli.value(key) for key in ("name", "run", "ckpt_path"))
    if checkpoint:
        folder, path = RunFolder.reopen(name, chosen, checkpoint)
        known = {k: Result.from_json(v) for k, v in folder.read_json("summary.json").get("success", {}).items()}
    else:
        folder, path, known = RunFolder.create(name, chosen), None, {}
        cli.save_config(folder.path / "config.yaml")
    return Run(cli, folder, MetricsFile(folder.path / "metrics.csv"), known, path)


def fit(args: Sequence[str] | None = None) -> Run:
    """The command as a function: trains, and returns the run with its results."""
    begun = time.perf_counter()
    cli = AgentCLI(args)
    data, module = cli.datamodule, cli.model
    sft = cli.value("sft")
    needed = {"train": None, "validation": None, "test": None} | ({"sft": sft.demonstrations} if sft else {})
    try:
        data.preflight(module.policy.chat, **needed)
        run = open_run(cli)
        print(f"run folder: {run.folder.path}", flush=True)
        data.open(module.policy)
        run.go()
    except KeyboardInterrupt:
        print(f"\ninterrupted; {run.folder.path} is usable. Continue with the same command and", file=sys.stderr)
        print(f"  --ckpt_path last --run {run.folder.path}", file=sys.stderr)
        raise
    finally:
        data.close()
    if (run.folder.path / "metrics.csv").exists():
        draw_curve(run.folder.path / "metrics.csv", run.folder.path / "curve.png", run.results)
    limits = f"{data.limits.turns} turns, temperature {data.evaluation.temperature}, seed {data.seed}"
    print_table(f"{data.tasks}, test, {limits}, {(time.perf_counter() - begun) / 60:.1f} min", run.results)
    print(f"run folder: {run.folder.path}")
    return run


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    try:
        return run_command(lambda: fit(args) is None)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
