"""A run's folder: the only place that knows its file names, and how to write them so that a kill leaves them whole."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lit_agents.errors import BadInput
from lit_agents.types import Episode, TurnRewards

RUNS = Path("runs")


class RunFolder:
    """Files of one run.

    ``config.yaml`` (resolved, reproduces the run), ``metrics.csv``, ``episodes.jsonl``, ``ledger.json``, ``summary.json``,
    ``curve.png``, ``checkpoints/<stage>/{best,last}.ckpt``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(name: str, chosen: str | None) -> RunFolder:
        """A new folder: the one chosen, or the next free ``runs/<name>-<number>``.

        Raises:
            BadInput: it already holds a run, or cannot be written.
        """
        path = Path(chosen) if chosen else _next_free(name)
        if path.exists() and any(path.iterdir()):
            way_out = f"Choose another --run, or continue this one with --ckpt_path last --run {path}."
            raise BadInput(f"--run {path}", "already holds a run.", way_out)
        try:
            path.mkdir(parents=True, exist_ok=True)
            (path / ".write").write_text("x")
            (path / ".write").unlink()
        except OSError as error:
            why = "no space is left on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
            raise BadInput(f"--run {path}", f"cannot be written: {why}.", "Choose another --run.") from error
        return RunFolder(path)

    @staticmethod
    def reopen(name: str, chosen: str | None, checkpoint: str) -> tuple[RunFolder, Path]:
        """The folder a checkpoint lies in; ``last`` is the newest checkpoint of the chosen, or the newest, run.

        Raises:
            BadInput: there is none.
        """
        if checkpoint == "last":
            folder = Path(chosen) if chosen else _newest(name)
            found = sorted(folder.glob("checkpoints/*/last.ckpt"), key=lambda p: p.stat().st_mtime_ns) if folder else []
            if not found:
                where = folder or RUNS / f"{name}-*"
                raise BadInput("--ckpt_path last", f"{where} holds no checkpoint.", "Start again without --ckpt_path.")
            return RunFolder(found[-1].parents[2]), found[-1]
        path = Path(checkpoint)
        if not path.is_file():
            raise BadInput(f"--ckpt_path {checkpoint}", "there is no such file.", "Name a .ckpt file, or last.")
        folder = path.resolve().parents[2]
        if not (folder / "config.yaml").is_file() or (chosen and Path(chosen).resolve() != folder):
            reason = "it does not lie in checkpoints/<stage>/ of a run folder" + (f" {chosen}." if chosen else ".")
            raise BadInput(f"--ckpt_path {checkpoint}", reason, "Name the checkpoint inside its run folder.")
        return RunFolder(folder), path

    def checkpoints(self, stage: str) -> Path:
        """Where a stage's checkpoints are."""
        return self.path / "checkpoints" / stage

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a file in one step."""
        write_whole(self.path / name, json.dumps(content, indent=2, sort_keys=False) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """A file's content; empty if it is not there."""
        path = self.path / name
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def add_episodes(self, phase: str, iteration: int, episodes: list[Episode], rewards: list[TurnRewards]) -> None:
        """Append episodes, a line each; failures have no rewards."""
        worth = iter(rewards)
        with (self.path / "episodes.jsonl").open("a", encoding="utf-8") as file:
            for episode in episodes:
                reward = None if episode.stop.is_failure else asdict(next(worth))
                row = {"phase": phase, "iteration": iteration, **asdict(episode), "stop": episode.stop.value}
                file.write(json.dumps(row | {"rewards": reward}) + "\n")

    def episodes_size(self) -> int:
        """Bytes of ``episodes.jsonl``."""
        path = self.path / "episodes.jsonl"
        return path.stat().st_size if path.exists() else 0

    def cut_episodes(self, size: int) -> None:
        """Forget what was written after a checkpoint."""
        path = self.path / "episodes.jsonl"
        if path.exists():
            os.truncate(path, size)


class MetricsFile(Logger):
    """``metrics.csv``: a row each time something is logged, with its stage and iteration; new columns are added on the right."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self.stage = path, ""
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        self._columns = list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def name(self) -> str:
        """For Lightning."""
        return "metrics"

    @property
    def version(self) -> str:
        """For Lightning."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """``config.yaml`` has them."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        numbers = dict(metrics)
        iteration = int(numbers.pop("epoch", 0)) + 1
        row = {"stage": self.stage, "iteration": str(iteration), "step": str(step or 0)}
        row |= {k: repr(float(v)) for k, v in sorted(numbers.items())}
        self.rows.append(row)
        if set(row) <= set(self._columns):
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._rewrite()

    def cut(self, count: int) -> None:
        """Forget rows written after a checkpoint."""
        del self.rows[count:]
        self._rewrite()

    def _rewrite(self) -> None:
        self._columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self._path, text.getvalue())


def write_whole(path: Path, text: str) -> None:
    """Write beside, then rename: whoever reads sees the old content or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8", newline="")
    os.replace(beside, path)


def _numbered(name: str) -> dict[int, Path]:
    found = {p.name.removeprefix(f"{name}-"): p for p in RUNS.glob(f"{name}-*")}
    return {int(number): p for number, p in found.items() if number.isdigit()}


def _next_free(name: str) -> Path:
    return RUNS / f"{name}-{max(_numbered(name), default=0) + 1}"


def _newest(name: str) -> Path | None:
    numbered = _numbered(name)
    return numbered[max(numbered)] if numbered else None
