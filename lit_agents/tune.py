"""A study: ``python -m lit_agents.tune --config sweeps/smoke.yaml``.

Runs every setting that the study's file asks for with every seed, and goes on where it was when it is called again. Several of
these commands, on several machines if the storage is a server, share one study.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import optuna
from jsonargparse import ArgumentError, Namespace
from jsonargparse.typing import PositiveInt, register_type
from optuna.trial import TrialState

from lit_agents.errors import BadInput
from lit_agents.fit import FitCLI
from lit_agents.report.html import PAGE, REPORT, write
from lit_agents.report.load import read
from lit_agents.run.cli import quiet, run_command
from lit_agents.run.cli_errors import refusal, wrapped
from lit_agents.run.folder import STAGES
from lit_agents.run.overrides import ExactParser
from lit_agents.run.plan import planned
from lit_agents.study import storage
from lit_agents.study.config import Study
from lit_agents.study.config_merge import Settings
from lit_agents.study.console import print_study
from lit_agents.study.launcher import Resolved, Runs
from lit_agents.study.memory_room import Room
from lit_agents.study.runner import Search
from lit_agents.study.study_json import latest, write_trials
from lit_agents.system.files import made_folder
from lit_agents.system.yaml_text import read_yaml

STUDIES = Path("studies")


def parsed(args: Sequence[str] | None) -> tuple[Study, Namespace]:
    """The study of the file that is named, and what else was given.

    Raises:
        BadInput: by the name of the file or key.
    """
    register_type(
        Settings,
        serializer=lambda settings: settings.content,
        deserializer=Settings.read,
        fail_already_registered=False,
    )
    parser = ExactParser(prog="python -m lit_agents.tune", description=__doc__, exit_on_error=False)
    parser.add_argument("--config", action="config", help="the study's YAML file")
    parser.add_class_arguments(Study, None)
    parser.add_argument("--folder", type=str | None, default=None, help="of the study, instead of studies/<name>")
    stored = "where the trials are kept, instead of a journal in the folder: sqlite:///FILE, postgresql+psycopg://..."
    parser.add_argument("--storage", type=str | None, default=None, help=stored)
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="runs at once, where memory allows")
    gone = "make this trial again: its process is gone, on a machine or in a container that cannot be seen from here"
    parser.add_argument("--release", type=int | None, default=None, help=gone)
    try:
        config = parser.parse_args(None if args is None else list(args))
        made = parser.instantiate(config)
        return Study(**{name: made[name] for name in Study.__dataclass_fields__}), config
    except (ArgumentError, ValueError) as error:
        raise wrapped(error) or refusal(str(error), "tune") from error


def resolve(arguments: Sequence[str]) -> Resolved:
    """What `lit_agents.fit` would do with its arguments; nothing is made or loaded.

    Raises:
        BadInput: it would refuse them.
    """
    cli = FitCLI(arguments)
    plan = planned(cli)
    supervised = bool(plan.supervised or cli.model.demonstrated)
    rl = not cli.model.demonstrated and plan.iterations != 0
    stages = tuple(name for name, there in zip(STAGES, (True, supervised, rl), strict=True) if there)
    return Resolved(read_yaml(cli.config_text()), plan.demonstrations, stages)


@quiet()
def tune(args: Sequence[str] | None = None, stop: Event | None = None) -> optuna.Study:
    """The command as a function: all trials, and a table of them.

    Args:
        stop: set when the runs of all threads are to end.
    """
    study, given = parsed(args)
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


@contextmanager
def stopping() -> Iterator[Event]:
    """What is set by Ctrl-C and by SIGTERM, a scheduler's word, beside the KeyboardInterrupt of the main thread."""
    stop = Event()

    def interrupted(*_: object) -> None:
        stop.set()
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, interrupted) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


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
