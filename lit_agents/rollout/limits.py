"""How long an episode may be, and how many are played at once."""

from __future__ import annotations

from dataclasses import dataclass

from lit_agents.errors import BadInput


@dataclass(frozen=True)
class Window:
    """What an agent sees of a long episode: the first turn, which states the goal, and the newest ones.

    When a turn more would be in sight than ``turns``, or the next action might not fit the context, only the ``keep`` newest
    turns stay, or fewer, if not even they fit. What is left is read anew, so dropping many at once is cheaper than one by one.
    """

    turns: int
    """Earlier turns in sight at most, besides the first."""
    keep: int
    """How many of them stay when some are dropped: ``turns`` for a window that slides with every turn."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 <= self.keep <= self.turns:
            reason = f"{self.keep} is not between 0 and the {self.turns} of data.limits.window.turns."
            raise BadInput("data.limits.window.keep", reason, "Use half of those.")


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
    window: Window | None = None
    """How a conversation goes on that has become too long; null keeps every turn in sight, and ends it there."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("turns", "context", "concurrent", "step_timeout", "reset_timeout"):
            if getattr(self, name) <= 0:
                raise BadInput(
                    f"data.limits.{name}", f"{getattr(self, name)} is not above 0.", "Give it a positive value."
                )
