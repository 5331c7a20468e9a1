"""How long an episode may be, and how many are played at once."""

from __future__ import annotations

from dataclasses import dataclass

from lit_agents.errors import BadInput


@dataclass(frozen=True)
class Limits:
    """Checked in this order after each action: failure, the world's own end, turns; before each action: context."""

    turns: int = 8
    """Actions an episode may take; part of the task, so reaching it is an end (arXiv 2510.01132, table 4)."""
    context: int = 1024
    """Tokens of the whole conversation, the next action's longest possible text included."""
    concurrent: int = 64
    """Episodes played at once, per process; more only wait, and the batch the model sees stays the same size."""
    step_timeout: float = 30.0
    """Seconds an environment may take to answer an action."""
    reset_timeout: float = 60.0
    """Seconds an environment may take to begin an episode."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("turns", "context", "concurrent", "step_timeout", "reset_timeout"):
            if getattr(self, name) <= 0:
                raise BadInput(
                    f"data.limits.{name}", f"{getattr(self, name)} is not above 0.", "Give it a positive value."
                )
