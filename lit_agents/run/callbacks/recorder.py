"""Episodes are measured and written down, with a row of numbers per iteration."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_agents.algorithm.base import AgentModule
from lit_agents.distributed import from_all_ranks
from lit_agents.evaluation.failures import GO_ON, refuse_broken
from lit_agents.evaluation.metrics import EpisodeMetrics
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.run.folder import Mark, RunFolder
from lit_agents.types import Episode, TurnRewards


class EpisodeRecorder(Checkpoint):
    """Measures rollouts and validation, logs them, and keeps every episode, a row of numbers and the ledger per iteration.

    A `Checkpoint`, because Lightning calls those after the module has its numbers of the iteration; it comes before the
    callback that writes the checkpoint, so everything up to a checkpoint is in the files when it is written. Its state
    is how long they were, and a resumed stage cuts them to that.
    """

    def __init__(self, data: RolloutDataModule, folder: RunFolder, stage: str) -> None:
        self._data, self._folder, self._stage = data, folder, stage
        self._validation: dict[str, float] = {}
        self._begun, self._tokens = 0.0, 0
        self._resumed: Mark | None = None
        self.row: dict[str, float] = {}
        """The numbers of the latest iteration."""
        self.trained = False
        """Whether any iteration was begun, rather than found finished in a checkpoint."""

    @property
    def state_key(self) -> str:
        """What `mark_in` looks for."""
        return "EpisodeRecorder"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an interrupted run wrote after its checkpoint."""
        self.trained = True
        if self._resumed:
            self._folder.cut(self._resumed)
        self._folder.forget(self._stage)
        self._begun, self._tokens = time.perf_counter(), self._tokens_computed()

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
        self._validation = self._recorded("validation", trainer.current_epoch, *batch)
        refuse_broken(from_all_ranks(batch[0]), self._data.schedule.max_failures, "validation", GO_ON)
        for name, value in self._validation.items():
            pl_module.log(name, value, batch_size=1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure this iteration's rollouts and write everything down."""
        found = self._data.latest
        assert found is not None and isinstance(pl_module, AgentModule)
        row: dict[str, float] = {}
        if self._stage != "sft" or trainer.current_epoch == 0:  # demonstrations are the same in every epoch
            episodes = [*found.played, *found.failures]
            row |= self._recorded("rollout", trainer.current_epoch, episodes, found.played_rewards)
        groups = {"groups_without_signal": found.groups_without_signal, "groups_dropped": found.groups_dropped}
        groups["groups_played"] = found.groups_played
        row |= {f"rollout/{name}": float(sum(from_all_ranks([count]))) for name, count in groups.items()}
        row |= self._averaged({f"rollout/{name}": value for name, value in self._data.numbers.items()})
        seconds = time.perf_counter() - self._begun
        clock = {"iteration_seconds": seconds, "tokens/s": (self._tokens_computed() - self._tokens) / seconds}
        of_steps = frozenset(f"train/{name}" for name in pl_module.per_step)
        row |= self._averaged({f"train/{k}": v for k, v in pl_module.numbers.items()}, of_steps)
        largest = from_all_ranks([pl_module.numbers.get("sampler_ratio_max", 0.0)])
        row |= {"train/sampler_ratio_max": max(largest)} if max(largest) else {}
        row["train/computed_tokens"] = sum(from_all_ranks([pl_module.numbers["computed_tokens"]]))
        for name, value in {**row, **clock}.items():
            if trainer.world_size > 1 or not name.startswith("train/"):  # alone the module has logged its own
                pl_module.log(name, value, batch_size=1)
        self.row, self._validation = {**row, **self._validation, **clock}, {}
        self._folder.metrics.add(self._stage, trainer.current_epoch + 1, trainer.global_step, self.row)
        ledger = self._data.ledger
        ledger.seconds[self._stage] = ledger.seconds.get(self._stage, 0.0) + seconds
        self._folder.write_json("ledger.json", self._data.account())
        self._begun, self._tokens = time.perf_counter(), self._tokens_computed()

    def _tokens_computed(self) -> int:
        """Tokens that went through the model so far, in rollouts and in training."""
        return self._data.engine.cost.computed_tokens + self._data.ledger.tokens_computed

    def _recorded(
        self, phase: str, epoch: int, episodes: Sequence[Episode], rewards: Sequence[TurnRewards]
    ) -> dict[str, float]:
        """The episodes of all ranks, kept and measured."""
        everyone, worth = from_all_ranks(episodes), from_all_ranks(rewards)
        self._folder.add_episodes(self._stage if phase == "rollout" else phase, epoch + 1, everyone, worth)
        metrics = EpisodeMetrics()
        metrics.update(everyone, worth)
        numbers = {f"{phase}/{name}": float(value) for name, value in metrics.compute().items()}
        return {name: value for name, value in numbers.items() if not math.isnan(value)}  # a mean over nothing

    @staticmethod
    def _averaged(numbers: Mapping[str, float], per_step: frozenset[str] = frozenset()) -> dict[str, float]:
        """The mean over the ranks that have a number; where all episodes lack signal, what is added up over tokens is 0."""
        everywhere = from_all_ranks([(numbers, per_step)])
        names = dict.fromkeys(name for each, _ in everywhere for name in each)
        sums = frozenset().union(*(mine for _, mine in everywhere))
        found = {name: [each[name] for each, _ in everywhere if name in each] for name in names}
        return {name: sum(v) / (len(everywhere) if name in sums else len(v)) for name, v in found.items()}

    def state_dict(self) -> dict[str, Any]:
        """Lengths of the files."""
        return asdict(self._folder.mark())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Where to cut the files, if training goes on from here."""
        self._resumed = Mark(**state_dict)


def mark_in(checkpoint: Mapping[str, Any]) -> Mark | None:
    """How long the files were when a checkpoint was written."""
    state = checkpoint.get("callbacks", {}).get("EpisodeRecorder")
    return Mark(**state) if state else None
