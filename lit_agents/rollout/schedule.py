"""How many episodes an iteration has, and how they become optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass

from lit_agents.errors import BadInput


@dataclass(frozen=True)
class Schedule:
    """Counts over all processes together."""

    tasks: int = 8
    """Tasks (groups) per iteration."""
    group_size: int = 8
    """Episodes per task."""
    passes: int = 1
    """Times an iteration's episodes are trained on."""
    minibatches: int = 1
    """Optimizer steps per pass."""
    micro_batch_tokens: int = 16384
    """Unique tokens that go through the model at once; bounds memory, changes nothing else."""
    resample_rounds: int = 0
    """Dynamic sampling: this many times, groups whose members all earned the same are replaced by new tasks."""
    retries: int = 2
    """New attempts at an episode whose environment failed."""
    max_failures: float = 0.5
    """Share of failed attempts above which the run stops."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("tasks", "group_size", "passes", "minibatches", "micro_batch_tokens"):
            if getattr(self, name) < 1:
                raise BadInput(f"data.schedule.{name}", f"{getattr(self, name)} is below 1.", "Set it to 1 or more.")
        for name in ("resample_rounds", "retries"):
            if getattr(self, name) < 0:
                raise BadInput(f"data.schedule.{name}", f"{getattr(self, name)} is below 0.", "Set it to 0 for none.")
        if not 0 <= self.max_failures <= 1:
            raise BadInput("data.schedule.max_failures", f"{self.max_failures} is not a share.", "Use 0 to 1.")
        if self.minibatches > self.tasks:
            reason = f"{self.minibatches} cannot each hold a group of {self.tasks} tasks."
            raise BadInput("data.schedule.minibatches", reason, "Lower it, or raise data.schedule.tasks.")

    @property
    def steps_per_iteration(self) -> int:
        """Optimizer steps, each of one minibatch."""
        return self.passes * self.minibatches

    def check(self, compares_group: bool, ranks: int, context: int) -> None:
        """Refuse what the algorithm, the number of processes or the length of episodes cannot work with.

        Raises:
            BadInput: by the name of the flag.
        """
        if compares_group and self.group_size < 2:
            reason = "this algorithm compares the episodes of a group; one episode alone has no baseline."
            raise BadInput("data.schedule.group_size=1", reason, "Set it to 2 or more, or use PPO or ReinforcePP.")
        if self.resample_rounds and not compares_group:
            reason = "this algorithm compares no episodes, so it has no groups without signal to replace."
            raise BadInput("data.schedule.resample_rounds", reason, "Set it to 0, or use GRPO or RLOO.")
        if self.tasks % ranks:
            reason = f"{self.tasks} tasks cannot be shared equally by {ranks} processes."
            raise BadInput("data.schedule.tasks", reason, f"Use a multiple of {ranks}.")
        if self.minibatches * ranks > self.tasks:
            reason = f"{self.minibatches} cannot each hold a group of every process: {self.tasks} tasks are shared by {ranks}."
            raise BadInput("data.schedule.minibatches", reason, "Lower it, or raise data.schedule.tasks.")
        if context > self.micro_batch_tokens:
            reason = (
                f"an episode may have {context} (data.limits.context), more than {self.micro_batch_tokens} at once."
            )
            way_out = f"Set it to {context} or more, or lower data.limits.context."
            raise BadInput("data.schedule.micro_batch_tokens", reason, way_out)


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
