"""Signs that a run is going wrong, told while there is time, and a way to stop on them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_agents.distributed import is_first
from lit_agents.errors import BadInput

RECENT = 5
"""Iterations over which success is averaged."""


@dataclass(frozen=True)
class Watch:
    """When a number of an iteration is a warning; null switches one off."""

    entropy: float | None = 0.02
    """Nats per token; below it the policy has all but stopped to explore."""
    success_drop: float | None = 0.25
    """Success of the last five iterations below the best five so far."""
    kl: float | None = 1.0
    """Nats per token to the reference policy; above it little of the model may be left."""
    update_kl: float | None = 0.1
    """Nats per token between the policy that played and that before each optimizer step, on average; above it steps are too
    long. With one step in an iteration there is nothing between them, and this says nothing."""
    silent_groups: float | None = 0.9
    """Share of groups whose members all earned the same; above it there is hardly anything to learn from."""
    unfinished: float | None = 0.5
    """Share of actions without an end; above it the policy talks instead of acting."""
    logprob_gap: float | None = 0.2
    """Nats between log-probabilities of sampler and trainer with equal weights; above it they are not the same policy."""
    patience: int = 2
    """Iterations in a row before it is said."""
    stop: bool = False
    """End the stage at a warning, instead of only saying it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.patience < 1:
            raise BadInput("watch.patience", f"{self.patience} is below 1.", "Set it to 1 to be told at once.")
        for name in ("entropy", "success_drop", "kl", "update_kl", "silent_groups", "unfinished", "logprob_gap"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise BadInput(f"watch.{name}", f"{value} is below 0.", "Set it to null to switch it off.")

    def signs(self, row: Mapping[str, float], success: list[float]) -> dict[str, str]:
        """What is wrong in one iteration.

        Args:
            row: its numbers; those that are not there are not judged.
            success: of all iterations so far.
        """
        found: dict[str, str] = {}

        def judge(name: str, value: float | None, bad: Callable[[float, float], bool], meaning: str) -> None:
            limit = getattr(self, name)
            if limit is not None and value is not None and (math.isnan(value) or bad(value, limit)):
                found[name] = f"{value:.3g}, {'below' if name == 'entropy' else 'above'} {limit:g}: {meaning}"

        played = row.get("rollout/groups_played")
        silent = row["rollout/groups_without_signal"] / played if played else None
        judge("entropy", row.get("train/entropy"), float.__lt__, "the policy hardly explores any more")
        judge("success_drop", _drop(success), float.__gt__, "success has fallen below what it was")
        judge("kl", row.get("rollout/kl"), float.__gt__, "the policy is far from the reference")
        judge("update_kl", row.get("train/update_kl"), float.__gt__, "the updates of one iteration are too long")
        judge("silent_groups", silent, float.__gt__, "hardly any group tells good from bad")
        judge("unfinished", row.get("rollout/unfinished_rate"), float.__gt__, "actions do not come to an end")
        judge("logprob_gap", row.get("train/sampler_gap"), float.__gt__, "sampler and trainer are not one policy")
        return found


def _drop(success: list[float]) -> float | None:
    """How far the mean of the last iterations is below the best mean of as many in a row."""
    means = [sum(success[i : i + RECENT]) / RECENT for i in range(len(success) - RECENT + 1)]
    return max(means) - means[-1] if means else None


def say(text: str) -> None:
    """To the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


class EarlyWarning(Checkpoint):
    """Judges every iteration by its row of numbers, says and logs (``warning/<name>``) what is wrong, and can end the stage.

    A `Checkpoint`, because Lightning calls those last; it belongs behind the `EpisodeRecorder`, whose row is of this iteration
    alone and of all processes, and before what writes checkpoints, so that they hold its state.

    Args:
        watch: the limits.
        row: the numbers of the latest iteration.
    """

    def __init__(self, watch: Watch, row: Callable[[], Mapping[str, float]]) -> None:
        self.watch, self._row = watch, row
        self.said: list[str] = []
        """Every warning so far."""
        self.stopped = False
        self._success: list[float] = []
        self._in_a_row: dict[str, int] = {}

    @property
    def state_key(self) -> str:
        """One of a kind."""
        return "EarlyWarning"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A stage that was ended by a warning does not go on when it is resumed, unless it may now."""
        if self.stopped and self.watch.stop:
            trainer.should_stop = True
            if is_first():
                say("stopped by watch.stop before; set it to false to go on")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the iteration."""
        row = self._row()
        if "rollout/success" in row:
            self._success.append(row["rollout/success"])
        signs = self.watch.signs(row, self._success)
        self._in_a_row = {name: self._in_a_row.get(name, 0) + 1 for name in signs}
        due = [name for name, count in self._in_a_row.items() if count == self.watch.patience]
        for name in due:
            pl_module.log(f"warning/{name}", 1.0, rank_zero_only=True)
            text = f"iteration {trainer.current_epoch + 1}: {name} is {signs[name]} (watch.{name})"
            self.said.append(text)
            if is_first():
                say(f"warning: {text}")
        self.stopped = self.watch.stop and bool(due)
        if self.stopped:
            trainer.should_stop = True
            if is_first():
                say("stopped by watch.stop")

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {"said": self.said, "success": self._success, "in_a_row": self._in_a_row, "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.said, self._success = list(state_dict["said"]), list(state_dict["success"])
        self._in_a_row, self.stopped = dict(state_dict["in_a_row"]), bool(state_dict["stopped"])
