"""A run's folder: the only place that knows its file names, and how to write them so that a kill leaves them whole."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import IO, Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from lit_agents.distributed import is_first
from lit_agents.errors import BadInput
from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.run.lock import LOCK, in_use, locked
from lit_agents.run.metrics_file import MetricsFile
from lit_agents.system.files import HALF, hash_of, to_disk, write_whole
from lit_agents.types import Episode, TurnRewards

RUNS = Path("runs")
STAGES = ("base", "sft", "rl")
"""Of a run, in the order they come: the policy it begins with, and what it has become after each."""
SHARED = "LIT_AGENTS_RUN"
"""Environment variable by which the first process of a run tells the processes it starts which folder is theirs."""


def run_of(checkpoint: Path) -> Path | None:
    """The run folder whose ``checkpoints/<stage>/`` a file lies in, as it is named or where links lead; None if in none."""
    named = [Path(os.path.abspath(checkpoint)), checkpoint.resolve()]
    folders = [path.parent.parent.parent for path in named]
    return next((folder for folder in folders if (folder / "config.yaml").is_file()), None)


@dataclass(frozen=True, order=True)
class Mark:
    """How long the growing files were at some moment of the run; later marks are larger."""

    rows: int = 0
    """Of ``metrics.csv``."""
    episodes: int = 0
    """Bytes of ``episodes.jsonl``."""
    trained: int = 0
    """Bytes of ``trained.jsonl``."""


class RunFolder:
    """Files of one run; written by the first process alone.

    ``config.yaml`` (resolved, reproduces the run), ``metrics.csv``, ``episodes.jsonl`` (what was played), ``trained.jsonl``
    (what was trained on), ``ledger.json``, ``summary.json``, ``curve.png``, ``checkpoints/<stage>/{best,last}.ckpt``.
    """

    def __init__(self, path: Path, numbered: str | None = None) -> None:
        self.path, self.writes = path, is_first()
        self._numbered = numbered
        self._lock: IO[str] | None = None

    @cached_property
    def metrics(self) -> MetricsFile:
        """``metrics.csv``, read when it is first needed: not before the folder is this process's own."""
        return MetricsFile(self.path / "metrics.csv", self.writes)

    @staticmethod
    def find(name: str, chosen: str | None) -> RunFolder:
        """A folder for a new run: the one chosen, or the next free ``runs/<name>-<number>``. Nothing is made yet.

        Until `create` a numbered folder may become one with a higher number, if another process is faster.

        Raises:
            BadInput: it already holds a run, or the processes of the run cannot agree on one.
        """
        given = chosen or (None if is_first() else os.environ.get(SHARED))
        from_outside = TorchElasticEnvironment.detect() or SLURMEnvironment.detect() or not is_first()
        if from_outside and not given:
            reason = (
                "is not given, and each of several processes started from outside would choose a folder of its own."
            )
            raise BadInput("--run", reason, "Name one.")
        path = Path(given) if given else next(_free(name))
        if is_first() and path.exists() and (not path.is_dir() or _names(path) - {LOCK}):
            way_out = f"Choose another --run, or continue this one with --ckpt_path last --run {path}."
            raise BadInput(f"--run {path}", "already holds a run, or other files.", way_out)
        return RunFolder(path, None if given else name)

    def create(self) -> None:
        """Make the folder this process's own, if it is not yet, and tell the processes that this one will start.

        Raises:
            BadInput: it cannot be written, or another process has begun a run in it since it was looked at.
        """
        if not self.writes:
            return
        try:
            if self._numbered is not None:
                self._take_a_free_one(self._numbered)
            elif self._lock is None:
                self.path.mkdir(parents=True, exist_ok=True)
                self.lock()
                if not _holds_nothing(self.path, None):
                    raise BadInput(f"--run {self.path}", "another process has used it.", "Choose another --run.")
            ledger = self.path / "ledger.json"
            write_whole(ledger, ledger.read_text(encoding="utf-8") if ledger.exists() else "{}\n")
        except OSError as error:
            raise BadInput(f"--run {self.path}", f"cannot be written: {error}.", "Choose another --run.") from error
        os.environ[SHARED] = str(self.path.resolve())

    def _take_a_free_one(self, name: str) -> None:
        """Make the next numbered folder: of several processes that try one number, ``mkdir`` lets one have it."""
        for path in _free(name):
            self.path = path
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError:
                continue
            self._lock = locked(path)
            if self._lock is not None:  # else it was chosen as --run, or as the newest run, as soon as it was there
                return

    def lock(self) -> None:
        """Keep other processes out of a folder until `release`; those that this one starts for its run do not ask.

        Raises:
            BadInput: another process is at work in it, or it cannot be locked.
        """
        if not self.writes or self._lock is not None:
            return
        try:
            self._lock = locked(self.path)
        except OSError as error:
            raise BadInput(f"--run {self.path}", f"cannot be locked: {error}.", "Choose another --run.") from error
        if self._lock is None:
            raise in_use(self.path)

    def release(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @staticmethod
    def reopen(name: str, chosen: str | None, checkpoint: str) -> tuple[RunFolder, Path | None]:
        """The folder a checkpoint lies in; ``last`` is that of the last stage of the chosen, or the newest, run.

        A folder chosen by name may hold nothing yet, so that one command both begins a run and goes on with it.

        A folder that holds a run is locked first: what is read of it is what this process goes on from.

        Returns:
            The folder and the checkpoint; None if the run was interrupted before its first one, or has not begun.

        Raises:
            BadInput: there is no such run.
        """
        if checkpoint == "last":
            folder = Path(chosen or os.environ.get(SHARED, "")) if chosen or not is_first() else _newest(name)
            begun = folder is not None and (folder / "config.yaml").is_file()
            if folder is None or not (begun or _holds_nothing(folder, chosen)):
                where = folder or RUNS / f"{name}-*"
                way_out = "Name a run folder with --run, or start again without --ckpt_path."
                raise BadInput("--ckpt_path last", f"{where} holds no run.", way_out)
            found = RunFolder(folder)
            if begun:
                found.lock()
            paths = [folder / "checkpoints" / stage / "last.ckpt" for stage in reversed(STAGES)]
            return found, next((path for path in paths if path.is_file()), None)
        path = Path(checkpoint)
        if not path.is_file():
            raise BadInput(f"--ckpt_path {checkpoint}", "there is no such file.", "Name a .ckpt file, or last.")
        folder = run_of(path)
        if folder is None or (chosen and Path(chosen).resolve() != folder.resolve()):
            reason = "it does not lie in checkpoints/<stage>/ of a run folder" + (f" {chosen}." if chosen else ".")
            raise BadInput(f"--ckpt_path {checkpoint}", reason, "Name the checkpoint inside its run folder.")
        if path.name != "last.ckpt":
            reason = "training goes on from last.ckpt alone; the best checkpoint is there to be evaluated."
            raise BadInput(f"--ckpt_path {checkpoint}", reason, f"Name {path.with_name('last.ckpt')}.")
        found = RunFolder(folder)
        found.lock()
        return found, path

    def checkpoints(self, stage: str) -> Path:
        """Where a stage's checkpoints are."""
        return self.path / "checkpoints" / stage

    def keep_config(self, text: str) -> None:
        """Write ``config.yaml``; one that was different becomes ``config.<number>.yaml``."""
        path = self.path / "config.yaml"
        if not self.writes or (path.exists() and path.read_text(encoding="utf-8") == text):
            return
        if path.exists():  # copied first: without a config.yaml the folder would hold no run for a moment
            number = 1 + len(list(self.path.glob("config.*.yaml")))
            write_whole(self.path / f"config.{number}.yaml", path.read_text(encoding="utf-8"))
        write_whole(path, text)

    def config_hashes(self) -> dict[str, str]:
        """SHA-256 of every configuration the run has had, by file name, the oldest first."""
        earlier = {p.suffixes[0][1:]: p for p in self.path.glob("config.*.yaml")}
        paths = [earlier[number] for number in sorted((n for n in earlier if n.isdigit()), key=int)]
        return {path.name: hash_of(path) for path in [*paths, self.path / "config.yaml"] if path.is_file()}

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a file in one step."""
        if self.writes:
            write_whole(self.path / name, json.dumps(content, indent=2, sort_keys=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """A file's content; empty if it is not there."""
        path = self.path / name
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def forget(self, stage: str) -> None:
        """What was measured after a stage that is trained now, and after later ones, is of other weights than it will have."""
        summary = self.read_json("summary.json")
        later = [name for name in STAGES[STAGES.index(stage) :] if name in summary.get("success", {})]
        for part in ("success", "elsewhere", "measured", "written"):
            for name in later:
                summary.get(part, {}).pop(name, None)
        if later:
            self.write_json("summary.json", summary)

    def add_episodes(
        self, phase: str, iteration: int, episodes: Sequence[Episode], rewards: Sequence[TurnRewards]
    ) -> None:
        """Append episodes, a line each; failures have no rewards."""
        if not self.writes:
            return
        worth = iter(rewards)
        with (self.path / "episodes.jsonl").open("a", encoding="utf-8") as file:
            for episode in episodes:
                reward = None if episode.stop.is_failure else next(worth)
                file.write(StoredEpisode(phase, iteration, episode, reward).row() + "\n")

    def add_trained(self, stage: str, iteration: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append what was trained on, a line each; see `lit_agents.run.callbacks.token_log`."""
        if not self.writes:
            return
        with (self.path / "trained.jsonl").open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({"stage": stage, "iteration": iteration, **row}) + "\n")

    def mark(self) -> Mark:
        """Now. What is counted is on disk before anybody keeps the count."""
        for path in self._growing:
            if self.writes and path.exists():
                to_disk(path)
        return Mark(len(self.metrics.rows), *(path.stat().st_size if path.exists() else 0 for path in self._growing))

    def cut(self, mark: Mark, stages: Sequence[str] = ()) -> None:
        """Forget what was written later, the checkpoints of these later stages, and files that a kill left half written.

        Raises:
            BadInput: a file is shorter than it was.
        """
        if self.writes:
            for path, size in zip(self._growing, (mark.episodes, mark.trained), strict=True):
                there = path.stat().st_size if path.exists() else 0
                if there < size:
                    reason = f"it has {there} bytes, and had {size} when the checkpoint was written."
                    raise BadInput(str(path), reason, "Put the whole file back, or begin the run again.")
                if there > size:
                    os.truncate(path, size)
            for checkpoint in (c for stage in stages for c in self.checkpoints(stage).glob("*.ckpt")):
                checkpoint.unlink()
            for half in (h for folder in ("", "checkpoints/*/") for h in self.path.glob(f"{folder}.*{HALF}")):
                half.unlink()
        self.metrics.cut(mark.rows)

    @property
    def _growing(self) -> tuple[Path, Path]:
        return self.path / "episodes.jsonl", self.path / "trained.jsonl"


def _holds_nothing(folder: Path, chosen: str | None) -> bool:
    """Whether no run has begun in a folder: it was killed on the way to its configuration, or is not there but was named."""
    if not folder.exists():
        return chosen is not None
    return folder.is_dir() and all(n in ("ledger.json", LOCK) or n.endswith(HALF) for n in _names(folder))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _numbered(name: str) -> dict[int, Path]:
    found = {p.name.removeprefix(f"{name}-"): p for p in RUNS.glob(f"{glob.escape(name)}-*")}
    return {int(number): p for number, p in found.items() if number.isdigit()}


def _free(name: str) -> Iterator[Path]:
    """Folders for a new run, from the number after the highest one that is there."""
    return (RUNS / f"{name}-{number}" for number in count(max(_numbered(name), default=0) + 1))


def _newest(name: str) -> Path | None:
    numbered = _numbered(name)
    return numbered[max(numbered)] if numbered else None
