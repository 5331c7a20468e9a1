"""Toy worlds that lack something."""

from __future__ import annotations

from pathlib import Path

from lit_agents.environment.base import Start, Transition
from lit_agents.environment.toy import EchoWorld
from lit_agents.types import Task


class FlakyEcho(EchoWorld):
    """Breaks in the first episode of every task, and never again; what was begun is known by its file, seen by all.

    Args:
        folder: where the files are.
        spared: a split that is sound.
    """

    def __init__(self, folder: str, spared: str = "validation") -> None:
        super().__init__()
        self._folder, self._spared = Path(folder).absolute(), spared

    def reset(self, task: Task) -> Start:
        self._folder.mkdir(exist_ok=True)
        self._file = self._folder / f"{task.split}-{task.id}"
        if task.split == self._spared:
            self._file.touch()
        return super().reset(task)

    def step(self, action: str) -> Transition:
        try:
            self._file.touch(exist_ok=False)  # one process alone makes it
        except FileExistsError:
            return super().step(action)
        raise RuntimeError("the lights went out")


class Mute(EchoWorld):
    """Has no expert."""

    def expert_action(self) -> None:
        return None
