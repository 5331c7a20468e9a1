"""Where a study's trials are kept: a journal in its folder, SQLite, or a server that many workers share."""

from __future__ import annotations

import os
import random
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError

from lit_agents.errors import BadInput
from lit_agents.study.config import Study
from lit_agents.system.processes import identity, is_gone

HEARTBEAT, PATIENCE = 60, 300
"""Seconds between two signs of life of a trial on a server, and after which without one its worker counts as dead."""
OWNER, IDENTITY, SURPLUS = "owner", "lit_agents", "surplus"
RETRIED, FIXED = "retry_history", "fixed_params"
"""System attributes of Optuna: the trials that one stands in for, and the values it is to have."""
ATTEMPTS = 6
"""Of opening a database; they take 8 seconds at most where each fails at once."""
NAMED = 10.0
"""Seconds in which whoever has created a study says whose it is."""
UNOWNED = 60
"""Seconds after which a trial that nobody has called his is nobody's."""


def opened(study: Study, home: Path, storage: str | None) -> optuna.Study:
    """The study in its storage, begun if it is not there.

    Args:
        storage: a URL such as ``sqlite:///FILE`` or ``postgresql+psycopg://USER@HOST/DATABASE``; None for a journal in ``home``.

    Raises:
        BadInput: the storage cannot be reached, or holds another study under that name.
    """
    try:
        found = _created_among_others(study, home, storage)
    except Exception as error:  # whatever a database and the way to it have
        reason = f"it cannot be used ({type(error).__name__}: {' '.join(str(error).split())[:300]})."
        raise BadInput(f"--storage {storage or home}", reason, "Check the URL, and that the server runs.") from error
    if found.get_trials(deepcopy=False):
        found.sampler.reseed_rng()  # or a search would propose again what it proposed before it was interrupted
    if _identity(found, study) != study.identity():
        reason = f"it holds a study called {study.name} whose configuration, settings, factors, seeds or objectives are others."
        way_out = "Give this one another name (in one folder they share equal runs), or another --folder and --storage."
        raise BadInput(f"--storage {storage or home}", reason, way_out)
    return found


def _identity(found: optuna.Study, study: Study) -> object:
    """Whose study it is: of whoever created it, who has said so, or is about to; of this one if it died before."""
    until = time.monotonic() + NAMED
    while not found.user_attrs.get(IDENTITY) and not found.get_trials(deepcopy=False) and time.monotonic() < until:
        time.sleep(0.1)
    if not found.user_attrs.get(IDENTITY) and not found.get_trials(deepcopy=False):
        found.set_user_attr(IDENTITY, study.identity())
    return found.user_attrs.get(IDENTITY)


def _created_among_others(study: Study, home: Path, storage: str | None) -> optuna.Study:
    """Of workers who meet an empty database at once all make its tables, and all but one fail, step by step."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return _created(study, home, storage)
        except DBAPIError:
            # not at the same moment again; forked workers share the state of `random`
            time.sleep(random.SystemRandom().uniform(0, 0.25 * 2**attempt))
    return _created(study, home, storage)


def _created(study: Study, home: Path, storage: str | None) -> optuna.Study:
    """The study; of several processes that meet none, the one that creates it says whose it is."""
    try:
        found = _study(study, home, storage, load_if_exists=False)
    except DuplicatedStudyError:
        return _study(study, home, storage, load_if_exists=True)
    found.set_user_attr(IDENTITY, study.identity())
    return found


def _study(study: Study, home: Path, storage: str | None, load_if_exists: bool) -> optuna.Study:
    grid = {name: factor.choices or [] for name, factor in study.factors.items()}
    return optuna.create_study(
        study_name=study.name,
        storage=_storage(home, storage),
        sampler=study.sampler or optuna.samplers.GridSampler(grid, seed=0),
        pruner=study.pruner or optuna.pruners.NopPruner(),
        directions=["maximize"] * len(study.objectives),
        load_if_exists=load_if_exists,
    )


def _storage(home: Path, url: str | None) -> optuna.storages.BaseStorage:
    if url is None:
        return JournalStorage(JournalFileBackend(str(home / "journal.log")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(
            url, heartbeat_interval=HEARTBEAT, grace_period=PATIENCE, heartbeat_stale_trial_callback=_queue_again
        )


def own(trial: optuna.Trial) -> None:
    """Note who works on a trial, so that it is known to be nobody's when that process is gone."""
    trial.set_user_attr(OWNER, identity(os.getpid()))


def tried_again(study: optuna.Study) -> list[int]:
    """Queue what a killed process of this machine was at, and what failed; the numbers of those trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)  # of other machines; queued by the storage's callback
    queued = []
    for trial in study.get_trials(deepcopy=False):
        gone = trial.state == TrialState.RUNNING and _is_nobodys(trial)
        if gone:
            _failed(study, trial.number)
        if (gone or trial.state == TrialState.FAIL) and trial.number not in _retried(study):
            _queue_again(study, trial)
            queued.append(trial.number)
    return queued


def _retried(study: optuna.Study) -> set[int]:
    return {number for trial in study.get_trials(deepcopy=False) for number in trial.system_attrs.get(RETRIED, [])}


def _queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """As it was begun: nobody's, and without the reason why it failed."""
    history = [*trial.system_attrs.get(RETRIED, []), trial.number]
    given = trial.params or queued(trial)
    attributes = {**trial.system_attrs, RETRIED: history, FIXED: given}
    waiting = optuna.trial.create_trial(state=TrialState.WAITING, system_attrs=attributes)
    study.add_trial(waiting)


def queued(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial that waits will have."""
    return dict(trial.system_attrs.get(FIXED, {}))


def under_way(study: optuna.Study) -> dict[int, str]:
    """By number the trials that some process is at, and which one as far as it has said so: host, process."""
    found = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        words = str(trial.user_attrs.get(OWNER, "")).split()
        found[trial.number] = (
            f"{words[0]}, process {words[3]}" if len(words) == 5 else "a process that has not said which"
        )
    return found


def release(study: optuna.Study, number: int) -> None:
    """End a trial whose process is gone where nobody here can see that, so that it is made again.

    Raises:
        BadInput: nobody is at it.
    """
    if number not in (there := under_way(study)):
        known = ", ".join(map(str, there)) or "none is"
        raise BadInput(f"--release {number}", "no trial of that number is under way.", f"Under way: {known}.")
    _failed(study, number)


def give_back(study: optuna.Study) -> list[int]:
    """End what this process is at, so that it is made again, on another machine too, which cannot see that it is gone.

    Returns:
        The numbers of those trials.
    """
    mine, given = identity(os.getpid()), []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(OWNER) == mine:
            _failed(study, trial.number)
            given.append(trial.number)
    return given


def _is_nobodys(trial: FrozenTrial) -> bool:
    if OWNER in trial.user_attrs:
        return is_gone(str(trial.user_attrs[OWNER]))
    begun = trial.datetime_start
    return begun is not None and (datetime.now() - begun).total_seconds() > UNOWNED


def is_taken(trial: optuna.Trial, setting: Mapping[str, Any]) -> bool:
    """Whether an earlier trial has the setting; a grid gives one to several workers when nothing else is left."""
    others = trial.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE))
    return any(other.number < trial.number and other.params == setting for other in others)


def _failed(study: optuna.Study, number: int) -> None:
    """End a trial; a grid would want to stop a search that has not begun, and another worker may have been faster."""
    sampler, study.sampler = study.sampler, optuna.samplers.RandomSampler()
    with suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError):
        study.tell(number, state=TrialState.FAIL)
    study.sampler = sampler


def waiting(study: optuna.Study) -> int:
    """Trials in the queue."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
