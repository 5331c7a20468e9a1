"""Where a study's trials are kept: a journal in its folder, SQLite, or a server that many workers share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from lit_agents.errors import BadInput
from lit_agents.processes import identity, is_gone
from lit_agents.study.design import Study

HEARTBEAT, PATIENCE = 60, 300
"""Seconds between two signs of life of a trial on a server, and after which without one its worker counts as dead."""
OWNER, IDENTITY, RETRIED, SURPLUS = "owner", "lit_agents", "retry_history", "surplus"
UNOWNED = 60
"""Seconds after which a trial that nobody has called his is nobody's."""


def opened(study: Study, home: Path, storage: str | None) -> optuna.Study:
    """The study in its storage, begun if it is not there.

    Args:
        storage: a URL such as ``sqlite:///FILE`` or ``postgresql+psycopg://USER@HOST/DATABASE``; None for a journal in ``home``.

    Raises:
        BadInput: the storage cannot be reached, or holds another study under that name.
    """
    grid = {name: factor.choices or [] for name, factor in study.factors.items()}
    try:
        found = optuna.create_study(
            study_name=study.name,
            storage=_storage(home, storage),
            sampler=study.sampler or optuna.samplers.GridSampler(grid, seed=0),
            pruner=study.pruner or optuna.pruners.NopPruner(),
            directions=["maximize"] * len(study.objectives),
            load_if_exists=True,
        )
    except Exception as error:  # whatever a database and the way to it have
        reason = f"it cannot be used ({type(error).__name__}: {' '.join(str(error).split())[:300]})."
        raise BadInput(f"--storage {storage or home}", reason, "Check the URL, and that the server runs.") from error
    known = found.user_attrs.get(IDENTITY)
    if known is None and not found.get_trials(deepcopy=False):
        found.set_user_attr(IDENTITY, study.identity())
    elif known != study.identity():
        reason = f"it holds a study called {study.name} whose configuration, settings, factors, seeds or objectives are others."
        way_out = "Give this one another name (in one folder they share equal runs), or another --folder and --storage."
        raise BadInput(f"--storage {storage or home}", reason, way_out)
    return found


def _storage(home: Path, url: str | None) -> optuna.storages.BaseStorage:
    if url is None:
        return JournalStorage(JournalFileBackend(str(home / "journal.log")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        again = RetryHeartbeatStaleTrialCallback()
        return RDBStorage(
            url, heartbeat_interval=HEARTBEAT, grace_period=PATIENCE, heartbeat_stale_trial_callback=again
        )


def own(trial: optuna.Trial) -> None:
    """Note who works on a trial, so that it is known to be nobody's when that process is gone."""
    trial.set_user_attr(OWNER, identity(os.getpid()))


def tried_again(study: optuna.Study) -> list[int]:
    """Queue what a killed process of this machine was at, and what failed; the numbers of those trials."""
    trials = study.get_trials(deepcopy=False)
    retried = {number for trial in trials for number in trial.system_attrs.get(RETRIED, [])}
    queued = []
    for trial in trials:
        gone = trial.state == TrialState.RUNNING and _is_nobodys(trial)
        if gone:
            _failed(study, trial.number)
        if trial.number not in retried and (gone or trial.state == TrialState.FAIL):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                RetryHeartbeatStaleTrialCallback()(study, trial)
            queued.append(trial.number)
    return queued


def give_back(study: optuna.Study) -> None:
    """End what this process is at, so that it is made again, on another machine too, which cannot see that it is gone."""
    mine = identity(os.getpid())
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(OWNER) == mine:
            _failed(study, trial.number)


def _is_nobodys(trial: FrozenTrial) -> bool:
    if owner := str(trial.user_attrs.get(OWNER, "")):
        return is_gone(owner)
    begun = trial.datetime_start
    return begun is not None and (datetime.now() - begun).total_seconds() > UNOWNED


def is_taken(trial: optuna.Trial, setting: Mapping[str, Any]) -> bool:
    """Whether an earlier trial has the setting; a grid gives one to several workers when nothing else is left."""
    others = trial.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE))
    return any(other.number < trial.number and other.params == setting for other in others)


def _failed(study: optuna.Study, number: int) -> None:
    """End a trial; a grid would want to stop a search that has not begun."""
    sampler, study.sampler = study.sampler, optuna.samplers.RandomSampler()
    study.tell(number, state=TrialState.FAIL)
    study.sampler = sampler


def waiting(study: optuna.Study) -> int:
    """Trials in the queue."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
