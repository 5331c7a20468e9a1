"""What a person sees of a running stage: a bar that goes away, and a line per iteration."""

from __future__ import annotations

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lit_agents.distributed import is_first
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.run.callbacks.recorder import EpisodeRecorder


class Bar:
    """A bar that goes away: how many of something are done. Nothing where nobody watches."""

    def __init__(self) -> None:
        self.console = Console(quiet=not is_first())
        self._bar = Progress(
            TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=self.console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None

    def show(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total``."""
        if not self.console.is_terminal or self.console.quiet:
            return
        if self._task is None or self._bar.tasks[0].description != what:
            self.hide()
            self._bar.start()
            self._task = self._bar.add_task(what, total=total)
        self._bar.update(self._task, completed=done, total=total)
        if done >= total:
            self.hide()

    def hide(self) -> None:
        """Leave the terminal as it was."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
            self._bar.stop()


class TerminalProgress(Checkpoint):
    """One line per iteration, made of what the recorder before it has just written down."""

    SHOWN = (
        ("success", "rollout/success", ".3f"), ("return", "rollout/return", ".3f"),
        ("validation", "validation/success", ".3f"), ("nll", "train/nll", ".3f"), ("KL", "rollout/kl", ".4f"),
        ("update KL", "train/update_kl", ".4f"), ("entropy", "train/entropy", ".3f"), ("tokens/s", "tokens/s", ".0f"),
    )  # fmt: skip

    def __init__(self, data: RolloutDataModule, recorder: EpisodeRecorder, bar: Bar, label: str) -> None:
        self._data, self._recorder, self._bar, self._label = data, recorder, bar, label
        self._begun, self._first = 0.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time left is judged from here."""
        self._begun, self._first = time.perf_counter(), trainer.current_epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The bar."""
        self._bar.show("training", batch_idx + 1, self._data.schedule.steps_per_iteration)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The line."""
        row, done, total = self._recorder.row, trainer.current_epoch + 1, trainer.max_epochs or 0
        left = (time.perf_counter() - self._begun) / (done - self._first) * max(0, total - done)
        parts = [f"{name} {row[key]:{form}}" for name, key, form in self.SHOWN if key in row]
        line = f"{self._label} {done}/{total}  {'  '.join(parts)}  {left / 60:.1f} min left"
        self._bar.hide()
        self._bar.console.print(line, highlight=False, soft_wrap=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        self._bar.hide()
