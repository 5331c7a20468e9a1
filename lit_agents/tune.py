"""A study: ``python -m lit_agents.tune --config sweeps/smoke.yaml``.

Runs every setting that the study's file asks for with every seed, and goes on where it was when it is called again. Several of
these commands, on several machines if the storage is a server, share one study.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import optuna
from optuna.trial import TrialState

from lit_agents.errors import BadInput
from lit_agents.report.html import PAGE, REPORT, write
from lit_agents.report.load import read
from lit_agents.study import storage
from lit_agents.study.command_line import parsed, resolve, stopping
from lit_agents.study.console import print_study
from lit_agents.study.launcher import Runs
from lit_agents.study.memory_room import Room
from lit_agents.study.runner import Search
from lit_agents.study.study_json import latest, write_trials
from lit_agents.system.command import quiet, run_command
from lit_agents.system.files import made_folder

STUDIES = Path("studies")


@quiet()
def tune(args: Sequence[str] | None = None, stop: Event | None = None) -> optuna.Study:
    """The command as a function: all trials, and a table of them.

    Args:
        stop: set when the runs of all threads are to end.
    """
    study, given = parsed(args, __doc__)
    home = Path(given.folder or STUDIES / study.name)
    search = Search(
        study, Runs(home, resolve, Room(given.jobs), stop), _say, lambda trials: write_trials(trials, study, home)
    )
    made_folder("--folder", home)
    count = search.check()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    trials = storage.opened(study, home, given.storage)
    if given.release is not None:
        storage.release(trials, given.release)
    seeds = ", ".join(map(str, study.seeds))
    _say(f"study folder: {home}; {count or study.trials} settings, each with seeds {seeds}")
    try:
        search.go(trials, given.jobs)
    finally:
        write_trials(trials, study, home)
    print_study(trials, study)
    for number, where in storage.under_way(trials).items():
        _say(f"trial {number} is under way at {where}; if that is gone, `--release {number}` makes it again")
    if trials.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        write(read([home]), home / REPORT)
        _say(f"report: {home / REPORT / PAGE}")
    return trials


def _say(line: str) -> None:
    print(line, flush=True)


def _command(args: Sequence[str] | None) -> None:
    try:
        with stopping() as stop:
            trials = tune(args, stop)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on.", file=sys.stderr)
        raise
    failed = [trial for trial in latest(trials) if trial.state == TrialState.FAIL]
    if failed:
        reason = f"{len(failed)} trials failed, the last one with: {failed[-1].user_attrs.get('error', 'no word')}"
        raise BadInput("study", reason, "Mend the cause, then give the same command again.")


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    return run_command(lambda: _command(args))


if __name__ == "__main__":
    sys.exit(main())
