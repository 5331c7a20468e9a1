"""Settings of the Trainer and optimizers that cannot work here, refused before anything is loaded or paid for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)  # fmt: skip
from lightning.pytorch.cli import OptimizerCallable

from lit_agents.errors import BadInput

AVERAGES = (StochasticWeightAveraging, WeightAveraging)
CHANGES = (BaseFinetuning, ModelPruning)
TUNERS = (BatchSizeFinder, LearningRateFinder)
NEEDS_LOGGER = (DeviceStatsMonitor, LearningRateMonitor)


def refuse_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings of the Trainer that would fail later, or would have no effect.

    Args:
        settings: arguments of the Trainer.

    Raises:
        BadInput: by the name of the setting.
    """
    every = settings["check_val_every_n_epoch"]
    if every is None or every < 1:
        reason = f"{every} is not a number of iterations."
        raise BadInput("trainer.check_val_every_n_epoch", reason, "Set it to 1 or more.")
    if settings["val_check_interval"] not in (None, 1.0) or settings["val_check_interval"] is True:
        reason = "validation comes between iterations, not within one."
        raise BadInput("trainer.val_check_interval", reason, "Leave it out, and set trainer.check_val_every_n_epoch.")
    if settings["limit_val_batches"] not in (None, 1.0):
        reason = (
            f"with {settings['limit_val_batches']} no checkpoint could be chosen by its success on validation tasks."
        )
        raise BadInput("trainer.limit_val_batches", reason, "Leave it out; data.validation_tasks says how many.")
    if settings["enable_checkpointing"] is False:
        reason = "a run keeps its best and its last checkpoint."
        raise BadInput("trainer.enable_checkpointing", reason, "Leave it out.")
    clip = settings["gradient_clip_val"]
    if clip is not None and clip < 0:
        reason = f"{clip} is negative, and would clip nothing."
        raise BadInput("trainer.gradient_clip_val", reason, "Set it to a positive number, or to null for no clipping.")


def refuse_callbacks(callbacks: Iterable[Any], supervised: bool, logs: bool) -> None:
    """Refuse callbacks that change what is trained, or that would end a run for want of a number.

    Args:
        callbacks: those of the Trainer's settings; each stage gets copies of them.
        supervised: the run has a supervised stage before RL.
        logs: there is a logger.

    Raises:
        BadInput: by the name of the class.
    """
    for callback in callbacks:
        name = type(callback).__name__
        if reason := _why_not(callback, supervised, logs):
            raise BadInput("trainer.callbacks", f"{name} {reason}.", "Leave it out.")


def _why_not(callback: Any, supervised: bool, logs: bool) -> str:
    if isinstance(callback, AVERAGES):
        return "exchanges weights for averaged ones, which have not sampled what is trained on"
    if isinstance(callback, CHANGES):
        return "changes weights, or which of them are trained, behind the policy's back"
    if isinstance(callback, TUNERS):
        return "tries settings on batches that would have to be played for it"
    if isinstance(callback, NEEDS_LOGGER) and not logs:
        return "needs trainer.logger"
    monitor = getattr(callback, "monitor", None)
    if (
        not isinstance(callback, EarlyStopping | ModelCheckpoint)
        or monitor is None
        or not getattr(callback, "strict", True)
    ):
        return ""
    known = ("train/", "rollout/", *(() if supervised else ("validation/",)))
    if monitor.startswith(known):
        return ""
    return f"watches {monitor}, which is not measured in every stage (there are {', '.join(known)}...)"


def refuse_optimizer(
    flag: str, optimizer: OptimizerCallable, full: bool, critic: float | None, device: torch.device
) -> None:
    """Make an optimizer of a few numbers; on a CPU take one step with it, too.

    Args:
        flag: where it is configured.
        optimizer: makes it.
        full: all weights are trained, vectors too; adapters are matrices alone.
        critic: learning rate of a critic's group, which has matrices and vectors; None for no critic.
        device: of the run; some optimizers step on a GPU alone, where nothing should be begun so early.

    Raises:
        BadInput: it does not take these parameters, or its own arguments.
    """
    if critic is not None and critic < 0:
        raise BadInput("model.critic_lr", f"{critic} is negative.", "Set it to a positive rate, e.g. 1.0e-4.")
    groups: list[dict[str, Any]] = [{"params": _parameters(vectors=full)}]
    groups += [] if critic is None else [{"params": _parameters(vectors=True), "lr": critic}]
    parameters = [parameter for group in groups for parameter in group["params"]]
    try:
        made = optimizer(groups)
        if device.type == "cpu":
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            made.step(lambda: 0.0)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        reason = f"it cannot train these weights ({' '.join(str(error).split())[:300]})."
        raise BadInput(
            flag, reason, "Change its arguments, or take another optimizer, e.g. torch.optim.AdamW."
        ) from error


def _parameters(vectors: bool) -> list[torch.nn.Parameter]:
    shapes = [(2, 2), (2,)] if vectors else [(2, 2)]
    return [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
