"""How the learning rate moves over a run: up in the first steps, down to its end."""

from __future__ import annotations

import math


def share_of_learning_rate(step: int, warmup: int, total: float) -> float:
    """What the learning rate of optimizer step ``step``, from 0, is multiplied by.

    Args:
        warmup: steps in which it rises to 1.
        total: steps of the run, after which it would be 0; infinite for no fall.
    """
    rising = (step + 1) / warmup if warmup else 1.0
    falling = (total - step) / (total - warmup) if warmup < total < math.inf else 1.0
    return max(0.0, min(1.0, rising, falling))
