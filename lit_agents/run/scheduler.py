"""What a scheduler's signals do: the run ends where it is, as after Ctrl-C, and SLURM is asked to queue its job again.

Every moment is a safe one to stop at: ``last.ckpt`` is written whole after every iteration, and what was done since is done
again, with the same result, when the run goes on. So nothing waits for the end of an iteration: SLURM may not wait so long.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from lit_agents.distributed import is_first
from lit_agents.errors import BadInput, Stopped, printable

NOT_REQUEUED = 138
"""Exit code after SIGUSR1 if SLURM did not take the job back, as in a shell."""
PATIENCE = 60
"""Seconds that ``scontrol`` may take."""


@contextmanager
def scheduler_signals() -> Iterator[None]:
    """SIGTERM raises `Stopped`; SIGUSR1 too where Lightning finds SLURM, and the job is queued again at the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python hands signals to the main thread alone
        return
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if not received:  # SLURM sends SIGTERM as soon as a job is queued again: the way out is not left twice
            received.append(number)
            raise Stopped(number)

    numbers = [signal.SIGTERM, signal.SIGUSR1] if SLURMEnvironment.detect() else [signal.SIGTERM]
    handlers = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except Stopped as stopped:
        if stopped.requeues:
            stopped.code = _requeued() if is_first() else 0
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _requeued() -> int:
    """Have SLURM queue this job again; the exit code."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    if wrong := _refused(job):
        print(f"SLURM did not queue job {printable(job)} again: {printable(wrong)}", file=sys.stderr)
        return NOT_REQUEUED
    print(f"SLURM has queued job {job} again", file=sys.stderr)
    return 0


def _refused(job: str) -> str:
    """Why it was not queued again; empty if it was."""
    if not re.fullmatch(r"\d+(_\d+)?", job):
        return "SLURM_JOB_ID is not the number of a job"
    try:
        done = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f"scontrol ends with {done.returncode}: {done.stderr}" if done.returncode else ""


def without_requeue(plugins: list[Any]) -> list[Any]:
    """A Trainer's plugins, so that Lightning handles no signal of SLURM: it would leave a checkpoint of its own, and load it.

    Raises:
        BadInput: Lightning was told to.
    """
    given = [plugin for plugin in plugins if isinstance(plugin, SLURMEnvironment)]
    if any(plugin.auto_requeue for plugin in given):
        reason = "SLURMEnvironment would requeue with a checkpoint that is not read here."
        raise BadInput("trainer.plugins", reason, "Leave it out: SIGUSR1 requeues without it.")
    return [*plugins, SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() and not given else plugins
