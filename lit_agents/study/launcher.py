"""Runs of `lit_agents.fit`, each in a folder that its resolved configuration names, so that none is made twice.

A supervised stage that several runs would begin with is a run of its own, made once; see `shared_stage`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

import yaml
from filelock import FileLock

from lit_agents.errors import BadInput
from lit_agents.study.config_merge import Overlay, disagreements, merged
from lit_agents.study.memory_room import Room
from lit_agents.study.shared_sft import shared_stage, stage_digest, start_of
from lit_agents.system.files import write_whole
from lit_agents.system.yaml_text import read_yaml, write_yaml

LAUNCH = """
import runpy, sys
from lit_agents.system.processes import end_with_parent
end_with_parent(int(sys.argv.pop(1)))  # nobody is there to go on with it when its starter was killed
runpy.run_module("lit_agents.fit", run_name="__main__")
"""
POLL = 1.0
"""Seconds between two looks at a run that is watched, or beside others."""
GRACE = 60.0
"""Seconds that a run has to end when it was told to."""
SHARED_STAGES = "sft"
"""Folder of the supervised stages that several runs begin with."""
UNNAMED = ("name",)
"""Settings that are no part of what a run is."""

Watch = Callable[[Path], bool]
"""Given the folder of a run that is under way: whether to give it up."""


@dataclass(frozen=True)
class Resolved:
    """What `lit_agents.fit` would do."""

    config: dict[str, Any]
    """As in ``config.yaml``."""
    demonstrations: int
    """Of its supervised stage; 0 for none."""
    stages: tuple[str, ...]
    """Those it will have been measured after."""

    @property
    def digest(self) -> str:
        """Names its folder; where it logs is no part of it, and what it begins with is what the checkpoint holds."""
        config = {**_without_places(self.config), "start_from": start_of(self.config)}
        return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12]


Resolve = Callable[[Sequence[str]], Resolved]
"""From the arguments of the command; raises BadInput."""


@dataclass(frozen=True)
class Done:
    """A finished run."""

    folder: Path
    start: Path | None
    """The run it began with."""
    resolved: Resolved
    """As it was proposed, its supervised stage included."""


class RunFailed(RuntimeError):
    """A run ended with an error; what it said last."""


class GivenUp(Exception):
    """A run was stopped by who watched it."""


class Runs:
    """Makes runs in a folder.

    Args:
        home: of the study.
        resolve: what `lit_agents.fit` makes of its arguments.
        room: how many runs fit beside each other.
        stop: set when no run is to go on; those of other threads are not told otherwise.
    """

    def __init__(self, home: Path, resolve: Resolve, room: Room, stop: Event | None = None) -> None:
        self._home, self._resolve, self._room, self._stop = home, resolve, room, stop or Event()
        self._parsing = Lock()

    def resolved(self, config: Overlay) -> Resolved:
        """What a run with these settings would be.

        Raises:
            BadInput: it cannot be, or the parser makes something else of the settings.
        """
        with (
            self._parsing
        ):  # as a text: beside a file the parser changes this process's working folder, for all threads
            found = self._resolve(["--config", write_yaml(dict(config))])
        if wrong := disagreements(config, found.config):
            reason = f"a run would not have what is proposed: {'; '.join(wrong)}."
            raise BadInput("settings and factors", reason, "Write values as a run's config.yaml has them.")
        return found

    def finished(self, config: Overlay, watch: Watch | None = None) -> Done:
        """The run with these settings, made or gone on with if it is not there.

        Raises:
            BadInput: it cannot be.
            RunFailed: it ended with an error.
            GivenUp: the watch said so.
            KeyboardInterrupt: it was told to stop.
        """
        resolved = self.resolved(config)
        stage = shared_stage(resolved.config, resolved.demonstrations) if resolved.stages[-1] == "rl" else None
        start, checkpoint, with_start = None, "", config
        if stage is not None:
            start = self._home / SHARED_STAGES / stage_digest(resolved.config, resolved.demonstrations)
            written = self._made(start, merged(config, stage), ("base", "sft"), None)
            if stage_digest(written, resolved.demonstrations) != start.name:  # it may be of another algorithm's run
                raise RunFailed(f"{start} is not the supervised stage that was proposed")
            checkpoint = str(start / "checkpoints" / "sft" / "last.ckpt")
            with_start = merged(config, {"sft": None, "start_from": checkpoint})
        folder = self._home / "runs" / resolved.digest
        stages = resolved.stages if start is None else ("base", "rl")
        if start is not None and not is_finished(folder, stages) and not Path(checkpoint).is_file():
            raise BadInput(
                checkpoint, "the run that was to leave it has ended, and it is not there.", f"Delete {start}."
            )
        written = self._made(folder, with_start, stages, watch)
        if wrong := disagreements(*map(_without_places, (with_start, written))):
            raise RunFailed(f"{folder} was not run with what was proposed: {'; '.join(wrong)}")
        return Done(folder, start, resolved)

    def _made(self, folder: Path, config: Overlay, stages: Sequence[str], watch: Watch | None) -> dict[str, Any]:
        """Its configuration, as the run itself has written it."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not is_finished(folder, stages):
                # a shared stage may have been begun for another algorithm, and goes on as it was
                begun = folder.parent.name == SHARED_STAGES and (folder / "config.yaml").is_file()
                with self._room.place():
                    self._run(folder, _config_of(folder) if begun else config, watch)
                if not is_finished(folder, stages):
                    raise RunFailed(f"{folder} was stopped before its end")
            return _config_of(folder)

    def _run(self, folder: Path, config: Overlay, watch: Watch | None) -> None:
        self._go_on()
        arguments = [*self._arguments(config), "--run", str(folder), "--ckpt_path", "last"]
        command = [sys.executable, "-c", LAUNCH, str(os.getpid()), *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "LIT_AGENTS_RUN"}
        log = folder.with_name(f"{folder.name}.log")
        with log.open("ab") as output:
            process = subprocess.Popen(command, env=environment | self._room.threads, stdout=output, stderr=output)
            try:
                given_up = self._waited(process, folder, watch)
            except BaseException:
                _end(process)
                raise
        if given_up:
            raise GivenUp(str(folder))
        if process.returncode:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RunFailed(f"{log} ends with code {process.returncode}: {' '.join(said[-3:])[-500:]}")

    def _arguments(self, config: Overlay) -> list[str]:
        """One file that holds all of it: what several files come to would depend on the parser."""
        text = write_yaml(dict(config))
        path = self._home / "settings" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            write_whole(path, text)
        return ["--config", str(path)]

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt

    def _waited(self, process: subprocess.Popen[bytes], folder: Path, watch: Watch | None) -> bool:
        """Wait for the end; True if it was given up before."""
        while True:
            try:
                process.wait(POLL if watch or self._room.shared else None)
                return False
            except subprocess.TimeoutExpired:
                self._go_on()
                if self._room.shared:
                    self._room.note(process.pid)
                if watch and watch(folder):
                    _end(process)
                    return True


def _without_places(config: Overlay) -> dict[str, Any]:
    """What makes two runs the same one: not their names, where they log, and where their folders lie now."""
    kept = {name: value for name, value in config.items() if name not in UNNAMED}
    kept["trainer"] = {name: value for name, value in config.get("trainer", {}).items() if name != "logger"}
    if start := config.get("start_from"):
        kept["start_from"] = "/".join(Path(start).parts[-4:])  # run/checkpoints/stage/file
    return kept


def _config_of(folder: Path) -> dict[str, Any]:
    """As the run itself has written it.

    Raises:
        RunFailed: it cannot be read.
    """
    try:
        return dict(read_yaml((folder / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise RunFailed(f"{folder}/config.yaml cannot be read ({error})") from error


def is_finished(folder: Path, stages: Sequence[str]) -> bool:
    """Whether a run was measured after each of these stages.

    Raises:
        BadInput: its summary cannot be read.
    """
    path = folder / "summary.json"
    if not path.is_file():
        return False
    try:
        return set(stages) <= set(json.loads(path.read_text(encoding="utf-8"))["success"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            str(path), f"it cannot be read ({error}).", "Delete the folder; the run is made again."
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
