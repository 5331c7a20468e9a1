"""Where a policy is measured beside its own test tasks: transfer, longer episodes, the tasks that settings are chosen by."""

from __future__ import annotations

from dataclasses import dataclass

from lit_agents.errors import BadInput


@dataclass(frozen=True)
class Elsewhere:
    """One more place where every stage is measured, beside the test tasks."""

    tasks: str | None = None
    """Other tasks of the same environment, e.g. ``w4-o6-q8``."""
    split: str = "test"
    """``test``, or ``validation`` for what settings are chosen by."""
    count: int | None = None
    """How many; by default as many as of the run's own."""
    turns: int | None = None
    """Another limit of turns."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.split not in ("test", "validation"):
            reason = f"{self.split} is played in training, or is no split."
            raise BadInput("elsewhere.split", reason, "Use test or validation.")
        for name in ("count", "turns"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise BadInput(f"elsewhere.{name}", f"{value} is below 1.", "Leave it out for the run's own.")
