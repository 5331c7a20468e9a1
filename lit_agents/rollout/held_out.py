"""What a run learns from, by content, so that a later run or measurement can tell whether its test tasks are held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lit_agents.environment.split_overlap import SPLITS, TaskSet
from lit_agents.errors import BadInput

Seen = Mapping[str, Sequence[str]]
"""By split (``train``, ``sft``, ``validation``), identities of tasks; see `lit_agents.environment.split_overlap.identities`."""


def seen_in(sets: Sequence[TaskSet], known: Sequence[Sequence[str | None]], before: Seen) -> dict[str, list[str]]:
    """What weights have seen after a run: its own training, demonstration and validation tasks, and what was seen before.

    Args:
        sets: the tasks of the run.
        known: their identities.
        before: by the weights that it begins with.
    """
    found = together(before, {})
    for each, names in zip(sets, known, strict=True):
        if each.split != "test":
            found = together(found, {each.split: [name for name in names if name is not None]})
    return found


def together(first: Seen, second: Seen) -> dict[str, list[str]]:
    """What was seen here or there."""
    splits = [split for split in SPLITS if split in first or split in second]
    return {split: sorted({*first.get(split, ()), *second.get(split, ())}) for split in splits}


def refuse_seen(sets: Sequence[TaskSet], known: Sequence[Sequence[str | None]], seen: Seen, where: str) -> None:
    """Refuse to test on what a checkpoint was trained or chosen on, and to choose by what it was trained on.

    Args:
        where: the flag that names the checkpoint.

    Raises:
        BadInput: it says how many.
    """
    trained = {*seen.get("train", ()), *seen.get("sft", ())}
    chosen = set(seen.get("validation", ()))
    for each, names in zip(sets, known, strict=True):
        for what, held in (("trained", trained), ("chosen", chosen if each.split == "test" else set[str]())):
            shared = [task for task, name in zip(each.tasks, names, strict=True) if name in held]
            if each.split in ("validation", "test") and shared:
                reason = f"it was {what} on {len(shared)} of the {len(each.tasks)} {each.split} tasks here, e.g. {shared[0].id}."
                raise BadInput(where, reason, "Use other tasks, or a checkpoint that has not seen them.")


def seen_by(checkpoint: Mapping[str, Any] | None, data: type) -> Seen:
    """What a checkpoint says of the tasks behind it; nothing for the untouched model.

    Args:
        data: the class of the data module that wrote it.
    """
    state = (checkpoint or {}).get(data.__qualname__, {})
    return dict(state.get("seen", {}))  # an older checkpoint does not say
