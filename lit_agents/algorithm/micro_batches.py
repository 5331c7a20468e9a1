"""One optimizer step out of parts that do not fit into memory together, with Lightning's automatic optimisation left as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from lit_agents.errors import BadInput

Part = TypeVar("Part")


def total_loss(
    loss_of_part: Callable[[Part], Tensor],
    parts: Sequence[Part],
    parameters: Sequence[nn.Parameter],
    scale: float = 1.0,
) -> Tensor:
    """The sum of the losses of all parts, 0 without any, to be differentiated once by whoever asked for it.

    The gradients are there already when this returns: each part is differentiated before the next one is looked at, so
    that the activations of one part alone are alive. What comes out is an ordinary node over the parameters; clipping,
    gradient scaling and DDP, whose ranks may have different numbers of parts, see one loss and one backward pass. A
    parameter no loss depends on has a gradient of 0, or other ranks would wait for it.

    Args:
        scale: what the caller will multiply the sum by before it is differentiated (the factor of a `GradScaler`). The parts
            are multiplied by it instead, or their gradients would vanish in float16 before the caller's factor comes in.
    """
    return cast(Tensor, _Parts.apply(loss_of_part, parts, scale, *parameters))  # type: ignore[no-untyped-call]


class _Parts(torch.autograd.Function):
    """See `total_loss`."""

    @staticmethod
    def forward(
        ctx: Any, loss_of_part: Callable[[Any], Tensor], parts: Sequence[Any], scale: float, *parameters: nn.Parameter
    ) -> Tensor:
        total = torch.zeros((), device=parameters[0].device)
        gradients = [torch.zeros_like(p) for p in parameters]
        for part in parts:
            with torch.enable_grad():
                loss = loss_of_part(part)
                scaled = loss * scale
            # a backward pass is not for autocast, which is on here if the caller computes in mixed precision
            with torch.autocast(total.device.type, enabled=False):
                found = torch.autograd.grad(scaled, parameters, allow_unused=True)
            for gradient, more in zip(gradients, found, strict=True):
                if more is not None:
                    gradient.add_(more)
            del found  # as large as everything that is trained
            total = total + loss.detach()
        ctx.gradients, ctx.scale = gradients, scale
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # given away, so they need not be copied
        return None, None, None, *(g.mul_(gradient / ctx.scale) for g in gradients)


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
