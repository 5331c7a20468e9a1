"""Two tiny worlds in plain Python, for tests of learning that take seconds. Each text is short on purpose."""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.errors import BadInput
from lit_agents.types import Task

SEEDS = {"test": 1, "validation": 100_001, "sft": 200_001, "train": 300_001}
"""The first seed of each split."""
MOST_TASKS = 100_000


class _ToyWorld(TextEnvironment):
    """What toy worlds share: a spec that is a pattern of numbers, and tasks that are seeds."""

    SPEC: ClassVar[re.Pattern[str]]
    EXAMPLE: ClassVar[str]
    repeatable = True

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        """Seeds in order."""
        self._sizes(spec)
        if split not in SEEDS:
            raise BadInput("split", f"there is no {split!r}.", f"Choose one of {', '.join(SEEDS)}.")
        if count > MOST_TASKS:
            raise BadInput("count", f"a split has {MOST_TASKS} tasks, not {count}.", "Ask for fewer.")
        return [self._task(spec, split, seed) for seed in range(SEEDS[split], SEEDS[split] + count)]

    def close(self) -> None:
        """Nothing is held."""

    def fingerprint(self) -> Mapping[str, str]:
        """The whole action is the command."""
        return {"commands": "one word", "admissible": "hidden"}

    def _sizes(self, spec: str) -> list[int]:
        match = self.SPEC.fullmatch(spec)
        if match is None:
            raise BadInput("spec", f"{spec!r} is not one of {type(self).__name__}.", f"Write it like {self.EXAMPLE}.")
        return [int(group) for group in match.groups()]

    @abstractmethod
    def _task(self, spec: str, split: str, seed: int) -> Task: ...


def _stream(task: Task) -> random.Random:
    return random.Random(f"{task.family} {task.id}")


@dataclass
class _Echo:
    answers: list[str]
    asked: int = 0
    right: int = 0


class EchoWorld(_ToyWorld):
    """Say the word that is shown. Spec ``r3-w4``: 3 rounds, the first 4 of the words.

    The score is the number of right answers so far. It is won if all are right, else lost after the last round.

    Args:
        words: what may be shown.
    """

    SPEC = re.compile(r"r([1-9]\d*)-w([1-9]\d*)")
    EXAMPLE = "r3-w4"

    def __init__(self, words: tuple[str, ...] = ("red", "blue", "green", "pink", "grey", "black")) -> None:
        self._words = words
        self._game: _Echo | None = None

    def reset(self, task: Task) -> Start:
        """Draw the words."""
        rounds, size = self._sizes(task.family)
        stream = _stream(task)
        self._game = _Echo([stream.choice(self._words[:size]) for _ in range(rounds)])
        return Start(self._cue(self._game), max_score=float(rounds))

    def step(self, action: str) -> Transition:
        """Compare the answer."""
        game = self._playing()
        said = action.strip()
        game.right += said == game.answers[game.asked]
        game.asked += 1
        over = game.asked == len(game.answers)
        won = game.right == len(game.answers)
        observation = "The end." if over else self._cue(game)
        lost = over and not won
        return Transition(observation, float(game.right), over, won=won, lost=lost, valid=said in self._words)

    def expert_action(self) -> str:
        """The word that is shown."""
        game = self._playing()
        return game.answers[game.asked]

    def admissible_actions(self) -> list[str]:
        """All the words."""
        return list(self._words)

    def _playing(self) -> _Echo:
        if self._game is None or self._game.asked == len(self._game.answers):
            raise RuntimeError("no episode is under way")
        return self._game

    @staticmethod
    def _cue(game: _Echo) -> str:
        return f"Say {game.answers[game.asked]}."

    def _task(self, spec: str, split: str, seed: int) -> Task:
        rounds, size = self._sizes(spec)
        if size > len(self._words):
            raise BadInput("spec", f"{spec!r} wants {size} of {len(self._words)} words.", "Lower w or give more words.")
        return Task(spec, str(seed), split, rewards=rounds, labels={"difficulty": spec})


@dataclass
class _Corridor:
    length: int
    cell: int
    door: str
    distance: int
    best: int = 0
    over: bool = False


class CorridorWorld(_ToyWorld):
    """Walk to the door, which is at the end that only the first message names. Spec ``n5``: 5 cells.

    The score counts the cells got nearer, at the best moment so far. It is won at the door and lost by walking off the
    other end; it has no end but these, so a turn limit belongs to it.
    """

    SPEC = re.compile(r"n([3-9]|[1-9]\d+)")
    EXAMPLE = "n5"

    def __init__(self) -> None:
        self._game: _Corridor | None = None

    def reset(self, task: Task) -> Start:
        """Draw the door's side and the first cell."""
        self._game = self._new(task)
        return Start(f"Door: {self._game.door}.", max_score=float(task.rewards))

    def step(self, action: str) -> Transition:
        """Walk one cell, or stay for a word that is neither direction."""
        game = self._playing()
        said = action.strip()
        game.cell += {"left": -1, "right": 1}.get(said, 0)
        left = game.cell if game.door == "left" else game.length - 1 - game.cell
        game.best = max(game.best, game.distance - left)
        won, lost = left == 0, not 0 <= game.cell < game.length
        game.over = won or lost
        observation = "Door!" if won else "You fell." if lost else "Hall."
        valid = said in self.admissible_actions()
        return Transition(observation, float(game.best), game.over, won=won, lost=lost, valid=valid)

    def expert_action(self) -> str:
        """Towards the door."""
        return self._playing().door

    def admissible_actions(self) -> list[str]:
        """Both directions."""
        return ["left", "right"]

    def _playing(self) -> _Corridor:
        if self._game is None or self._game.over:
            raise RuntimeError("no episode is under way")
        return self._game

    def _new(self, task: Task) -> _Corridor:
        (length,) = self._sizes(task.family)
        stream = _stream(task)
        door, cell = stream.choice(["left", "right"]), stream.randint(1, length - 2)
        return _Corridor(length, cell, door, cell if door == "left" else length - 1 - cell)

    def _task(self, spec: str, split: str, seed: int) -> Task:
        distance = self._new(Task(spec, str(seed), split)).distance
        return Task(spec, str(seed), split, rewards=distance, labels={"difficulty": spec})
