"""A process that has imported everything and forks runs of ``lit_agents.fit``, so that a run costs seconds, not imports.

``python zygote.py`` reads a JSON object per line: ``args`` for the command; ``env``, more variables; ``at`` and ``call``, a
moment of `MOMENTS` and its how-manieth occurrence, at which the run kills itself, or ``sends`` itself another signal; or
``watch`` and ``after``, a folder and seconds after it appeared, when it is killed. It answers with the exit status, negative
for a signal, and the seconds since the folder appeared.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lit_agents import fit
from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.checkpoint import AtomicCheckpoints
from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.rollout.collector import Collector
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.runner import Stage
from lit_agents.run import folder as run_folder
from lit_agents.run import metrics_file

SENT = [signal.SIGKILL]
"""What a run sends itself; by default what nothing can catch."""


def die() -> None:
    """The end, or a signal that the run handles."""
    os.kill(os.getpid(), SENT[-1])


def half_a_file(save: Callable[..., Any]) -> Callable[..., Any]:
    """A checkpoint of which only a part reached the disk."""

    def saving(content: Any, file: Any) -> None:
        save(content, file)
        file.flush()
        os.ftruncate(file.fileno(), file.tell() // 2)
        die()

    return saving


def half_a_line(row: Callable[..., str]) -> Callable[..., str]:
    """A line of which only a part was written."""

    def writing(stored: StoredEpisode) -> str:
        path = next(Path(name) for name in map(os.readlink, descriptors()) if name.endswith("episodes.jsonl"))
        with path.open("a") as file:
            file.write(row(stored)[:40])
        die()
        return ""

    return writing


def descriptors() -> list[str]:
    return [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]


def before(function: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> Any:
        die()
        return function(*args, **kwargs)

    return both


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)
        die()

    return both


MOMENTS: dict[str, tuple[Any, str, Callable[..., Callable[..., Any]]]] = {
    "before the configuration is kept": (run_folder.RunFolder, "keep_config", before),
    "in a rollout": (Collector, "_turn", before),
    "after a rollout": (RolloutDataModule, "_collect", after),
    "in a training step": (AgentModule, "training_step", after),
    "in the middle of a checkpoint": (torch, "save", half_a_file),
    "after a checkpoint": (AtomicCheckpoints, "save_checkpoint", after),
    "in the middle of an episode's line": (StoredEpisode, "row", half_a_line),
    "before a row of numbers": (metrics_file.MetricsFile, "add", before),
    "after a row of numbers": (metrics_file.MetricsFile, "add", after),
    "after the trained tokens": (run_folder.RunFolder, "add_trained", after),
    "in an evaluation": (Stage, "evaluate", before),
    "after an evaluation": (Stage, "evaluate", after),
    "before the results are written": (run_folder.RunFolder, "write_json", before),
}


def plan(moment: str, call: int) -> None:
    """Let the ``call``-th occurrence of a moment be the end."""
    owner, name, fault = MOMENTS[moment]
    function, left = getattr(owner, name), [call]

    @functools.wraps(function)  # Lightning looks at what arguments a step takes
    def counted(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        return (fault(function) if left[0] == 0 else function)(*args, **kwargs)

    setattr(owner, name, counted)


def child(order: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    os.environ.update(order.get("env", {}))
    SENT.append(order.get("sends", signal.SIGKILL))
    if "at" in order:
        plan(order["at"], order["call"])
    os._exit(fit.main(order["args"]))


def serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        os.environ.pop(run_folder.SHARED, None)
        pid = os.fork()
        if pid == 0:
            child(order)
        folder, begun, done = Path(order.get("watch", "/nowhere")), None, 0
        while not done:
            if begun is None and folder.exists():
                begun = time.monotonic()
            if begun is not None and "after" in order and time.monotonic() - begun >= order["after"]:
                os.kill(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.002)
        seconds = time.monotonic() - begun if begun else 0.0
        print(json.dumps([os.waitstatus_to_exitcode(status), seconds]), flush=True)


class Zygote:
    """The caller's end."""

    def __init__(self) -> None:
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def run(self, *args: str, **order: Any) -> tuple[int, float]:
        """A run's exit status, and how long it lasted from the appearance of the folder watched."""
        self.begin(*args, **order)
        return self.ended()

    def begin(self, *args: str, **order: Any) -> None:
        """Start a run."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order | {"args": args}) + "\n")
        self._process.stdin.flush()

    def ended(self) -> tuple[int, float]:
        """Wait for the run that was started; see `run`."""
        assert self._process.stdout is not None
        status, seconds = json.loads(self._process.stdout.readline())
        return status, seconds

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


if __name__ == "__main__":
    serve()
