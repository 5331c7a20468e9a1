"""Trials: each a setting of the factors, run with every seed."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lit_agents.errors import BadInput
from lit_agents.evaluation.stats.bootstrap import success
from lit_agents.rollout.budget import Budget, Prices
from lit_agents.run.record import TEST, Record
from lit_agents.study import storage
from lit_agents.study.config import Study
from lit_agents.study.launcher import Done, GivenUp, Resolved, RunFailed, Runs
from lit_agents.study.pruning import Progress
from lit_agents.study.study_json import latest

ERROR, RUNS, INTERVALS, SETTING = "error", "runs", "intervals", "setting"
"""User attributes of a trial."""


@dataclass(frozen=True)
class Search:
    """Makes the trials of a study."""

    study: Study
    runs: Runs
    say: Callable[[str], None]
    save: Callable[[optuna.Study], None]
    """Called after every trial."""

    def go(self, trials: optuna.Study, jobs: int) -> None:
        """Until every combination, or as many settings as the study says, have been tried.

        Args:
            trials: as `storage.opened` gives it.
            jobs: how many at once.
        """
        for number in storage.tried_again(trials):
            self.say(f"trial {number} was interrupted or failed; it is made again")
        try:
            while left := self._left(trials):
                callbacks = [self._told, self._enough]
                trials.optimize(self._trial, n_trials=left, n_jobs=jobs, catch=(RunFailed,), callbacks=callbacks)
                if lost := storage.give_back(trials):  # Optuna drops what is raised in a thread outside the objective
                    reason = f"trials {lost} have ended and their results could not be written."
                    raise BadInput("--storage", reason, "Look after it, then give the same command again.")
        except KeyboardInterrupt:
            storage.give_back(trials)
            raise

    def check(self) -> int:
        """Refuse, before anything is run, whatever cannot be: every combination, or every example of a search.

        Returns:
            How many combinations there are; 0 if a sampler chooses.

        Raises:
            BadInput: by the name of the setting.
        """
        searched = self.study.sampler is not None
        settings = list(self.study.examples() if searched else self.study.combinations())
        for setting in settings:
            resolved = self.runs.resolved(self.study.configuration(setting, self.study.seeds[0]))
            places = [TEST, *resolved.config["elsewhere"]]
            if unknown := [name for name in self.study.objectives if name not in places]:
                reason = f"runs are measured in {', '.join(places)}."
                raise BadInput(
                    f"objectives ({unknown[0]})", reason, "Name one of them, or add it to settings.elsewhere."
                )
            if self.study.pruner:
                self._budget(resolved)
        return 0 if searched else len(settings)

    def _left(self, trials: optuna.Study) -> int:
        """How many trials are to be begun; what others are at is theirs."""
        queue, known = storage.waiting(trials), latest(trials)
        if self.study.sampler is not None:
            return queue + max(0, (self.study.trials or 0) - len(known))
        settings = [trial.params or storage.queued(trial) for trial in known]
        return queue + sum(setting not in settings for setting in self.study.combinations())

    def _enough(self, trials: optuna.Study, _: FrozenTrial) -> None:
        """Stop where other workers have begun the rest."""
        if not self._left(trials):
            trials.stop()

    def _trial(self, trial: optuna.Trial) -> tuple[float, ...]:
        """The objectives, each the mean over the seeds."""
        storage.own(trial)
        setting = {name: factor.suggested(trial, name) for name, factor in self.study.factors.items()}
        trial.set_user_attr(SETTING, setting)
        if self.study.sampler is None and storage.is_taken(trial, setting):
            trial.set_user_attr(storage.SURPLUS, True)
            raise optuna.TrialPruned("another worker has this setting")
        progress: Progress | None = None
        done: list[Done] = []
        for seed in self.study.seeds:
            try:
                config = self.study.configuration(setting, seed)
                if self.study.pruner and progress is None:
                    progress = self._progress(trial, self.runs.resolved(config))
                done.append(self.runs.finished(config, progress))
            except GivenUp as error:
                raise optuna.TrialPruned(str(error)) from error
            except Exception as error:
                raise self._failed(trial, error) from error
            trial.set_user_attr(RUNS, [_where(run) for run in done])
            if progress:
                progress.next_run(done[-1].folder)
        try:
            records = [Record.of(run.folder, run.start) for run in done]
            found = {place: summed_up(records, place) for place in self.study.objectives}
        except (OSError, ValueError) as error:
            raise self._failed(trial, error) from error
        trial.set_user_attr(INTERVALS, found)
        return tuple(mean for mean, _, _ in found.values())

    def _failed(self, trial: optuna.Trial, error: Exception) -> RunFailed:
        """With its reason for the report."""
        expected = isinstance(error, RunFailed | OSError | ValueError)
        reason = str(error) if expected else "".join(traceback.format_exception(error))
        trial.set_user_attr(ERROR, reason[-1000:])
        return RunFailed(reason)

    def _progress(self, trial: optuna.Trial, resolved: Resolved) -> Progress:
        schedule = resolved.config["data"]["schedule"]
        return Progress(trial, self._budget(resolved), schedule["tasks"] * schedule["group_size"])

    @staticmethod
    def _budget(resolved: Resolved) -> Budget:
        given: dict[str, Any] | None = resolved.config["budget"]
        if not given or not given["prices"]["episode"]:
            reason = "trials are compared when equally much is spent, and there is no budget that is spent by episodes."
            raise BadInput("pruner", reason, "Set settings.budget, or leave out the pruner.")
        return Budget(given["total"], given["sft_share"], Prices(**given["prices"]))

    def _told(self, trials: optuna.Study, trial: FrozenTrial) -> None:
        """One line for a person, and the file for a report."""
        self.save(trials)
        if storage.SURPLUS in trial.user_attrs:
            return
        setting = ", ".join(f"{name} {level}" for name, level in trial.user_attrs.get(SETTING, trial.params).items())
        intervals = trial.user_attrs.get(INTERVALS, {})
        found = "; ".join(f"{n} {mean:.3f} ({low:.3f} - {high:.3f})" for n, (mean, low, high) in intervals.items())
        state = trial.state.name.lower()
        self.say(f"trial {trial.number}: {setting}: {found or trial.user_attrs.get(ERROR) or state}")


def summed_up(records: Sequence[Record], place: str) -> tuple[float, float, float]:
    """Success at the end of the runs, over seeds and tasks, with its interval.

    Raises:
        BadInput: they were not measured there.
    """
    return success([record.result(place).by_task for record in records])


def _where(run: Done) -> dict[str, Any]:
    return {"folder": str(run.folder), "start": run.start and str(run.start), "config": run.resolved.config}
