"""What happens beside training: episodes are measured and written down, and a person sees where the run stands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lit_agents.evaluation.metrics import EpisodeMetrics
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.run_folder import MetricsFile, RunFolder
from lit_agents.types import Episode, TurnRewards


class EpisodeRecorder(Callback):
    """Measures rollouts and validation, logs them, and keeps every episode and the ledger in the run folder.

    Its state is how long the files were at the checkpoint, so that a resumed run leaves no row twice.
    """

    def __init__(self, data: RolloutDataModule, folder: RunFolder, metrics: MetricsFile, stage: str) -> None:
        self._data, self._folder, self._metrics, self._stage = data, folder, metrics, stage
        self._validated: tuple[Sequence[Episode], Sequence[TurnRewards]] = ((), ())

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure validation episodes; ``validation/success`` chooses the checkpoint."""
        episodes, rewards = batch
        self._log(pl_module, "validation", episodes, rewards)
        self._folder.add_episodes("validation", trainer.current_epoch, list(episodes), list(rewards))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure this iteration's rollouts."""
        found = self._data.latest
        assert found is not None
        first = trainer.current_epoch == 0
        if self._stage != "sft" or first:  # demonstrations are the same in every epoch
            self._log(pl_module, "rollout", [*found.episodes, *found.failures], found.rewards)
            self._folder.add_episodes(
                self._stage, trainer.current_epoch, [*found.episodes, *found.failures], list(found.rewards)
            )
        numbers = {
            **self._data.numbers,
            "groups_without_signal": float(found.groups_without_signal),
            "groups_dropped": float(found.groups_dropped),
        }
        pl_module.log_dict({f"rollout/{name}": value for name, value in numbers.items()}, sync_dist=True)
        if trainer.is_global_zero:
            self._folder.write_json("ledger.json", self._data.ledger.state_dict())

    def _log(
        self, module: LightningModule, phase: str, episodes: Sequence[Episode], rewards: Sequence[TurnRewards]
    ) -> None:
        metrics = EpisodeMetrics()
        metrics.update(episodes, rewards)
        for name, value in metrics.compute().items():
            if value == value:  # a mean over nothing is left out
                module.log(f"{phase}/{name}", float(value), batch_size=1)

    def state_dict(self) -> dict[str, Any]:
        """Lengths of the files."""
        return {"rows": len(self._metrics.rows), "episodes": self._folder.episodes_size()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Cut the files to what the checkpoint knows."""
        self._metrics.cut(state_dict["rows"])
        self._folder.cut_episodes(state_dict["episodes"])


class TerminalProgress(Callback):
    """One line per iteration, and a bar while episodes are played or trained on."""

    def __init__(self, data: RolloutDataModule, label: str) -> None:
        self._data, self._label, self._begun, self._epoch_begun, self._first = data, label, 0.0, 0.0, 0
        self._tokens = 0
        self._console = Console()
        self._bar = Progress(
            TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=self._console, transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None

    def _show(self, what: str, done: int, total: int) -> None:
        if not self._console.is_terminal:
            return
        if self._task is None or self._bar.tasks[0].description != what:
            self._hide()
            self._bar.start()
            self._task = self._bar.add_task(what, total=total)
        self._bar.update(self._task, completed=done, total=total)
        if done >= total:
            self._hide()

    def _hide(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self._bar.stop()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time left is judged from here."""
        self._begun, self._first = time.perf_counter(), trainer.current_epoch
        self._data.on_progress = self._show

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tokens per second are judged from here."""
        self._epoch_begun, self._tokens = time.perf_counter(), self._data.ledger.tokens_computed

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The bar."""
        self._show("training", batch_idx + 1, self._data.schedule.steps_per_iteration)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The line."""
        m = {name: float(value) for name, value in trainer.callback_metrics.items()}
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 0
        seconds = time.perf_counter() - self._begun
        left = seconds / max(1, done - self._first) * (total - done)
        speed = (self._data.ledger.tokens_computed - self._tokens) / (time.perf_counter() - self._epoch_begun)
        wanted = {
            "success": "rollout/success", "return": "rollout/return", "validation": "validation/success", "nll": "train/nll",
            "KL": "rollout/kl", "entropy": "train/entropy",
        }  # fmt: skip
        parts = [f"{name} {m[key]:.3f}" for name, key in wanted.items() if key in m]
        parts += [f"{speed:.0f} tokens/s", f"{left / 60:.1f} min left"]
        self._console.print(f"{self._label} {done}/{total}  " + "  ".join(parts), highlight=False, soft_wrap=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        self._hide()
