"""Run a command: quiet libraries, errors as one paragraph, exit codes."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_agents.errors import BadInput, Stopped, printable

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in a shell."""


@contextmanager
def quiet() -> Iterator[None]:
    """No word from the libraries below, unless it is an error: the terminal belongs to the run."""
    from transformers.utils import logging as transformers_logging

    bars: Any = transformers_logging
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels, bar = [logger.level for logger in loggers], bars.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for package in ("lightning", "torch", "jsonargparse"):
                warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bar:
            bars.enable_progress_bar()


def out_of_space(error: OSError) -> bool:
    """Whether the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def run_command(command: Callable[[], object]) -> int:
    """Run a command; what is wrong with its input is one paragraph, and 2 its exit code."""
    try:
        with quiet():
            command()
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MisconfigurationException as error:
        print(f"error: trainer: {printable(str(error))} Change this setting of the trainer.", file=sys.stderr)
        return 2
    except OSError as error:
        if not out_of_space(error):
            raise
        print(f"error: {error.filename or 'disk'}: no space is left. Free some, then go on.", file=sys.stderr)
        return 2
    except Stopped as stopped:
        return stopped.code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
