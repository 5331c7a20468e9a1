"""What a Trainer must not do with minibatches: leave some out, or make one step of several."""

from __future__ import annotations

from lit_agents.errors import BadInput


def refuse_skipped(batches: float) -> None:
    """What was collected and paid for is trained on.

    Args:
        batches: the Trainer's ``limit_train_batches``, which ``overfit_batches`` and ``fast_dev_run`` set too.

    Raises:
        BadInput: it would leave some minibatches of an iteration out.
    """
    if not (isinstance(batches, float) and batches == 1.0):
        reason = f"with {batches} minibatches of an iteration would be collected and not trained on."
        way_out = (
            "Leave it out, overfit_batches and fast_dev_run too: data.schedule and trainer.max_epochs say how much."
        )
        raise BadInput("trainer.limit_train_batches", reason, way_out)


def refuse_accumulation(batches: int) -> None:
    """An item of the loader is one optimizer step.

    Raises:
        BadInput: the Trainer would make a step of several.
    """
    if batches != 1:
        reason = f"is {batches}, but every minibatch is an optimizer step."
        way_out = (
            "Leave it out: data.schedule.micro_batch_tokens bounds memory, data.schedule.minibatches sets the steps."
        )
        raise BadInput("trainer.accumulate_grad_batches", reason, way_out)
