"""A run's stages, one after the other, and what is kept of them in its folder."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lit_agents
from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.checkpoint import read_checkpoint, refuse_other
from lit_agents.algorithm.sft import SFT
from lit_agents.distributed import is_first
from lit_agents.errors import BadInput, printable
from lit_agents.evaluation.evaluate import conditions_of, measure, policy_player
from lit_agents.evaluation.failures import GO_ON, refuse_broken
from lit_agents.evaluation.parent_results import measured, results_of
from lit_agents.evaluation.result import Result
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.eval_set import Elsewhere
from lit_agents.run.callbacks.checkpoints import KeptWeights, LastValidated, MovableCheckpoint
from lit_agents.run.callbacks.health import EarlyWarning
from lit_agents.run.callbacks.memory import MemoryPreflight
from lit_agents.run.callbacks.progress import Bar, TerminalProgress
from lit_agents.run.callbacks.recorder import EpisodeRecorder, mark_in
from lit_agents.run.callbacks.token_log import TrainedTokens
from lit_agents.run.cli import AgentCLI, SupervisedStage
from lit_agents.run.folder import STAGES, Mark, RunFolder
from lit_agents.run.plan import RunPlan
from lit_agents.run.resuming import Change, Differences, condition_differences, config_differences, refuse_different

VERSIONS = ("torch", "lightning", "transformers", "peft")


@dataclass
class Run:
    """One run of one configuration, stage after stage."""

    cli: AgentCLI
    plan: RunPlan
    folder: RunFolder
    checkpoint: Path | None
    """Where to go on; None begins."""
    results: dict[str, Result] = field(default_factory=dict)
    """Of the test tasks, by stage."""
    marks: dict[str, Mark] = field(default_factory=dict)
    """How long the files were when a result was written."""
    cut: Mark | None = None
    """Where the files are cut before the run goes on; None for a run that begins."""
    bar: Bar = field(default_factory=Bar)
    start: dict[str, Any] | None = None
    """Another run's checkpoint, to begin with."""
    warnings: list[str] = field(default_factory=list)
    """What was said of the stage in which the policy plays."""
    elsewhere: dict[str, dict[str, Result]] = field(default_factory=dict)
    """By stage, then by the name of the place."""
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By stage, the weights its results are of; see `lit_agents.evaluation.parent_results`."""
    different: Differences = field(default_factory=dict)
    """In what it differs now from the run that it goes on with."""
    changes: list[Change] = field(default_factory=list)
    """Where it went on under other conditions."""
    tested: dict[str, float] = field(default_factory=dict)
    """Seconds by place and stage, of tests a checkpoint may be too old to know of."""

    def go(self) -> dict[str, Result]:
        """All stages; those that are inside the checkpoint are skipped."""
        data, module, plan = self.cli.datamodule, self.cli.model, self.plan
        data.on_progress, data.plan, data.budget = self.bar.show, plan.spending, self.cli.value("budget")
        module.policy.load()
        module.policy.to(self.plan.device)  # the engine makes its caches where the weights are
        if self.start or module.kl.reference == "base":
            module.configure_model()  # with all parts that a checkpoint may hold
        if module.kl.reference == "base":
            module.keep_reference()  # before other weights take its place
        if self.start:
            module.restore(self.start)
            data.ledger.go_on_from(self.start[type(data).__qualname__]["ledger"], first=is_first())
        data.open(module.policy)
        self.test("base", module, 0, self.known_of_start())
        if plan.supervised:
            self.supervise(plan.supervised, data, module)
        if module.demonstrated:
            self.train("sft", module, data)
        elif plan.iterations != 0:
            self.train("rl", module, data, max_epochs=plan.iterations)
        return self.results

    def know(self, stages: int) -> None:
        """The results of the first stages that are in the run folder."""
        summary = self.folder.read_json("summary.json")
        success, elsewhere, written = (summary.get(name, {}) for name in ("success", "elsewhere", "written"))
        known = [name for name in STAGES[:stages] if name in success and name in written]
        self.results = {name: Result.from_json(success[name]) for name in known}
        self.marks = {name: Mark(**written[name]) for name in known}
        self.measured = {name: of for name, of in summary.get("measured", {}).items() if name in known}
        seconds = self.folder.read_json("ledger.json").get("seconds", {})
        self.tested = {
            part: spent for part, spent in seconds.items() if part.rpartition("/")[2] in known and "/" in part
        }
        self.elsewhere = {
            name: {place: Result.from_json(found) for place, found in elsewhere.get(name, {}).items()} for name in known
        }

    def compare_config(self, allowed: bool) -> None:
        """Refuse to go on with another configuration; nothing is loaded yet.

        Raises:
            BadInput: some of it is kept, and was made under other conditions.
        """
        if not (self.checkpoint or self.results):
            return
        before = (self.folder.path / "config.yaml").read_text(encoding="utf-8")
        self.different = config_differences(before, self.cli.config_text())
        if not self.checkpoint:  # which names its weights itself
            hashes = self.folder.read_json("summary.json").get("weights"), self.cli.model.policy.identity["weights"]
            self.different |= {"weights": hashes} if hashes[0] != hashes[1] else {}
        refuse_different(self.different, str(self.folder.path), allowed)

    def compare_conditions(self) -> None:
        """Refuse to go on where tasks, their files or the environment's versions are others under one configuration.

        Raises:
            BadInput: as `compare_config`.
        """
        data = self.cli.datamodule
        for place, other in self.places().items():
            there = data.elsewhere(other)
            for stage in [name for name in self.results if name in self.marks]:
                before = self.results[stage] if place == "test" else self.elsewhere[stage][place]
                self.different |= condition_differences(place, before.conditions, conditions_of(there, other.split))
        refuse_different(self.different, str(self.folder.path), self.cli.value("allow_different"))

    def mark_changes(self) -> None:
        """Write down where the run goes on under other conditions, before anything is written under them."""
        summary = self.folder.read_json("summary.json")
        if self.cut is not None:
            rows = self.folder.metrics.rows[: self.cut.rows]
            after = "{stage}, iteration {iteration}".format(**rows[-1]) if rows else "the first test"
            known = [Change.from_json(content) for content in summary.get("changed", [])]
            self.changes = [left for each in known if (left := each.cut(self.cut, after, list(self.results)))]
            change = Change(self.cut, after, tuple(self.results), self.different)
            if self.different and change.as_json() not in [each.as_json() for each in self.changes]:
                self.changes.append(change)
                self.bar.console.print(printable(change.sentence), highlight=False, markup=False, soft_wrap=True)
        changed = [change.as_json() for change in self.changes]
        if changed != summary.get("changed", []):
            self.folder.write_json("summary.json", summary | {"changed": changed})
        self.folder.metrics.changes = len(changed)

    def places(self) -> dict[str, Elsewhere]:
        """By name, wherever every stage is measured."""
        return {"test": Elsewhere()} | dict(self.cli.value("elsewhere"))

    def known_of_start(self) -> dict[str, Result]:
        """By place, what the run that this one begins with found of the checkpoint."""
        if not self.start:
            return {}
        return results_of(Path(self.cli.value("start_from")), self.start["global_step"], self.means())

    def means(self) -> dict[str, str]:
        """What a measurement may depend on besides weights and conditions."""
        policy, engine = self.cli.model.policy, self.cli.datamodule.engine
        precision = str(self.cli.value("trainer").precision)
        return _versions() | {
            "dtype": str(policy.dtype), "precision": precision, "device": str(self.plan.device),
            "engine": type(engine).__qualname__, "system": str(policy.system), "thinking": str(policy.thinking),
        }  # fmt: skip

    def supervise(self, stage: SupervisedStage, data: RolloutDataModule, module: AgentModule) -> None:
        """The supervised stage: same policy, same world, same ledger, an optimizer of its own."""
        imitator = SFT(module.policy, stage.optimizer)
        demonstrations = data.demonstrations(self.plan.demonstrations, stage.minibatches)
        changes = {"max_epochs": stage.epochs, "limit_val_batches": 0, "max_steps": -1}
        self.train("sft", imitator, demonstrations, **changes)

    def train(self, name: str, module: AgentModule, data: RolloutDataModule, **changes: Any) -> None:
        """One stage, and what it came to on the test tasks."""
        at = self.checkpoint.parent.name if self.checkpoint else None
        if at and STAGES.index(at) > STAGES.index(name):
            return
        where = self.folder.checkpoints(name)
        best = MovableCheckpoint(where, "best", monitor="validation/success", mode="max", enable_version_counter=False)
        last = MovableCheckpoint(where, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        recorder = EpisodeRecorder(data, self.folder, name)
        watchers: list[Any] = [TrainedTokens(self.folder, name), recorder]
        watchers.append(TerminalProgress(data, recorder, self.bar, name))
        warning = EarlyWarning(self.cli.value("watch"), lambda: recorder.row)
        watchers += [MemoryPreflight()] if self.cli.value("preflight") else []
        watchers += [LastValidated()] if data.plan else []
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
            if not isinstance(interrupt := error.__context__, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, handler)
            raise interrupt from None
        steps, kept = trainer.global_step, Path(best.best_model_path or "last.ckpt")
        if best.best_model_path:
            steps = module.restore(read_checkpoint(kept))
        if module.demonstrated and (lost := data.ledger.total()["demonstrations_lost"]):
            said = f"{name}: {lost} demonstrations did not win in so many turns and tokens; they were paid for, and not imitated"
            self.bar.console.print(said, soft_wrap=True)
        self.warnings += warning.said
        if recorder.trained:
            self.results.pop(name, None)
        self.measured[name] = measured(kept, steps, self.means())
        self.test(name, module, steps)

    def test(
        self, name: str, module: AgentModule, steps: int, known: Mapping[str, Result] = MappingProxyType({})
    ) -> None:
        """Measure on the test tasks, unless a run that was interrupted later already has.

        Args:
            known: by place, what was found of the same weights; taken over where it was found under the same conditions.
        """
        data = self.cli.datamodule
        if name in self.results:
            spent = {part: seconds for part, seconds in self.tested.items() if part.endswith(f"/{name}")}
            data.ledger.seconds = spent | data.ledger.seconds
            return
        module.policy.to(self.plan.device)  # Lightning leaves it on the CPU
        found: dict[str, Result] = {}
        for place, other in self.places().items():
            there = data.elsewhere(other)
            earlier = known.get(place)
            if earlier and earlier.conditions.same_as(conditions_of(there, other.split)):
                self.bar.console.print(
                    f"{place}/{name}: as {self.cli.value('start_from')} was measured", soft_wrap=True
                )
                found[place] = earlier
                continue
            with data.ledger.clock(f"{place}/{name}"):
                result, episodes, rewards = measure(
                    there, module, policy_player(there, module, steps), split=other.split
                )
            self.folder.add_episodes(f"{place}/{name}", 0, episodes, rewards)
            refuse_broken(episodes, there.schedule.max_failures, f"{place} after {name}", GO_ON)
            found[place] = result
        self.results[name], self.elsewhere[name] = found.pop("test"), found
        self.marks[name] = self.folder.mark()
        self.folder.write_json("ledger.json", data.account())  # a run with the summary of its last stage has ended
        self.folder.write_json("summary.json", self.summary())

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        return {
            "name": self.cli.value("name"),
            "algorithm": type(self.cli.model).__name__,
            "weights": self.cli.model.policy.identity["weights"],
            "start_from": self.cli.value("start_from"),
            "seed": self.cli.datamodule.seed,
            "versions": _versions(),
            "success": {name: result.as_json() for name, result in self.results.items()},
            "elsewhere": {
                name: {place: result.as_json() for place, result in self.elsewhere[name].items()}
                for name in self.results
            },
            "measured": self.measured,
            "warnings": self.warnings,
            "changed": [change.as_json() for change in self.changes],
            "written": {name: asdict(mark) for name, mark in self.marks.items()},
            "config": self.folder.config_hashes(),
        }


def _versions() -> dict[str, str]:
    return {"lit_agents": lit_agents.__version__} | {package: version(package) for package in VERSIONS}


def open_run(cli: AgentCLI, plan: RunPlan) -> Run:
    """A new run folder, not made yet, or the one a checkpoint lies in.

    Raises:
        BadInput: there is no such folder, it is taken, or the checkpoint is of something else.
    """
    name, chosen, checkpoint = (cli.value(key) for key in ("name", "run", "ckpt_path"))
    if not checkpoint:
        run = Run(cli, plan, RunFolder.find(name, chosen), None)
        if is_first():
            return run
        run.know(len(STAGES))  # the process that started this one measured the base
        return run
    folder, path = RunFolder.reopen(name, chosen, checkpoint)
    try:
        return _reopened(cli, plan, folder, path)
    except BaseException:
        folder.release()
        raise


def _reopened(cli: AgentCLI, plan: RunPlan, folder: RunFolder, path: Path | None) -> Run:
    """What a run folder and its checkpoint come to."""
    if left := next(folder.path.glob("hpc_ckpt_*"), None):
        reason = "Lightning has left it at a requeue of SLURM, and would load it in the place of last.ckpt."
        raise BadInput(str(left), reason, "Delete it, then go on.")
    at = path.parent.name if path else "base"
    if at not in STAGES:
        raise BadInput(f"--ckpt_path {path}", f"{at} is no stage of a run.", "Name one in sft or rl.")
    mark = Mark()
    if path:
        content = read_checkpoint(path)
        module = cli.model if at == "rl" or cli.model.demonstrated else SFT(cli.model.policy)
        refuse_other(content, module.identity())
        mark = mark_in(content) or mark
    run = Run(cli, plan, folder, path)
    run.know(STAGES.index(at) + 1)
    if at in run.marks and run.marks[at] < mark:  # the stage went on after it was measured
        run.know(STAGES.index(at))
    run.cut = max([mark, *run.marks.values()])
    for place in cli.value("elsewhere"):
        if without := [stage for stage in run.results if place not in run.elsewhere[stage]]:
            reason = f"{' and '.join(without)} of {folder.path} {'were' if without[1:] else 'was'} measured without it."
            way_out = "Leave it out; lit_agents.evaluate measures a checkpoint of that run on other tasks."
            raise BadInput(f"elsewhere.{place}", reason, way_out)
    run.compare_config(cli.value("allow_different"))
    return run
