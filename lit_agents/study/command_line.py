"""The study of a file, and what a run of it would do."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event

from jsonargparse import ArgumentError, Namespace
from jsonargparse.typing import PositiveInt, register_type

from lit_agents.run.cli import FitCLI
from lit_agents.run.cli_errors import refusal, wrapped
from lit_agents.run.folder import STAGES
from lit_agents.run.overrides import ExactParser
from lit_agents.run.plan import planned
from lit_agents.study.config import Study
from lit_agents.study.config_merge import Settings
from lit_agents.study.launcher import Resolved
from lit_agents.system.yaml_text import read_yaml


def parsed(args: Sequence[str] | None, description: str | None = None) -> tuple[Study, Namespace]:
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
    parser = ExactParser(prog="python -m lit_agents.tune", description=description, exit_on_error=False)
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
