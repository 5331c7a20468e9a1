"""What the processes of a run tell each other besides gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import distributed

Item = TypeVar("Item")


def from_all_ranks(items: Sequence[Item]) -> list[Item]:
    """The items of every process of the run, in the order of the ranks; every process has to call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return list(items)
    everyone: list[list[Item]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(everyone, list(items))
    return [item for mine in everyone for item in mine]


def is_first() -> bool:
    """Whether this process is the one that writes; the others of a run only train."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0
