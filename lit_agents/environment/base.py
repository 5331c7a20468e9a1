"""The environment contract: text in, text out. Nobody who writes an environment ever sees a token.

A new environment is one file with one subclass of `TextEnvironment` and one YAML that names its class path. The object is
a plain, picklable description until `reset` is called; the pool sends a copy of it into a process of its own, where one
episode at a time is played. Run `lit_agents.environment.checker.check_env` on it before anything else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from lit_agents.types import Signal, Task


@dataclass(frozen=True)
class Start:
    """What an episode begins with."""

    observation: str
    """The whole first message to the agent: who it is, how to answer, the goal, the first state."""
    max_score: float = 1.0
    """The score of a win."""


@dataclass(frozen=True)
class Transition:
    """What one action led to."""

    observation: str
    score: float
    """Total so far, not a reward."""
    terminated: bool = False
    """The world reached an end of its own; never step it again."""
    truncated: bool = False
    """The world stopped for a reason outside its own rules; never step it again."""
    won: bool = False
    """Only with ``terminated``."""
    lost: bool = False
    """Only with ``terminated``; a world may also end neither won nor lost."""
    valid: bool = True
    """The action was a command this world understands here and now."""
    signals: Mapping[str, Signal] = field(default_factory=dict)
    """Anything else worth rewarding or logging; the names ``score``, ``gain`` and ``valid`` are taken."""


class TextEnvironment(ABC):
    """A world that is played by text."""

    repeatable: ClassVar[bool] = False
    """The same actions in the same task always get the same answers, in any process; `lit_agents.audit --replay` plays the
    stored actions of such a world again."""

    def install(self) -> str:
        """Fetch what its arguments name, once, before tasks are taken from it; says what there is then, or nothing.

        Raises:
            BadInput: it cannot be had, or is not what it should be.
        """
        return ""

    @abstractmethod
    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        """The first ``count`` tasks of a split, always the same ones in the same order, made first if they are not there.

        No two splits share a task, and none is in a split twice; `lit_agents.environment.split_overlap` compares them by content.

        Raises:
            BadInput: unknown spec or split, fewer tasks than asked for, missing or corrupt files.
        """

    @abstractmethod
    def reset(self, task: Task) -> Start:
        """Begin an episode. Called any number of times, after an end or in the middle of an episode."""

    @abstractmethod
    def step(self, action: str) -> Transition:
        """Play one action: any text at all, as the agent wrote it. Raises only if the world itself is broken."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind. May be called twice, and before `reset`."""

    def expert_action(self) -> str | None:
        """The best next action from the present state, whatever happened before; None where the world has no expert."""
        return None

    def admissible_actions(self) -> list[str]:
        """The actions possible now, for the random policy and never shown to an agent; empty where the world cannot say."""
        return []

    def prepare_hints(self) -> None:
        """Import what only the two methods above need, if it is much; see `EnvPool.expect_hints`."""
        return

    def fingerprint(self) -> Mapping[str, str]:
        """What two results must share to be comparable, besides their tasks.

        ``commands``: the grammar of what may be said; ``admissible``: whether the possible commands are ``shown`` or
        ``hidden``; the versions of the packages behind the world; whatever else changes what is seen or allowed.
        """
        return {}
