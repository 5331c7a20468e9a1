"""Worlds that serve their splits badly, or well in an unusual way; a module of their own, since session processes import them."""

from __future__ import annotations

from pathlib import Path

from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.types import Task

FIRST = {"train": 0, "sft": 1000, "validation": 2000, "test": 3000}


class Numbers(TextEnvironment):
    """Say the number that is shown. Its tasks have neither files nor a hash, and are numbered anew in each split."""

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return [Task(f"{spec} {FIRST[split]}", str(i), split) for i in range(count)]

    def reset(self, task: Task) -> Start:
        self._number = self.number(task)
        return Start(f"Say {self._number}.")

    def number(self, task: Task) -> str:
        return str(int(task.family.split()[-1]) + int(task.id))

    def step(self, action: str) -> Transition:
        won = action.strip() == self._number
        return Transition("The end.", float(won), terminated=True, won=won, lost=not won)

    def expert_action(self) -> str:
        return self._number

    def close(self) -> None:
        pass


class IgnoresSplit(Numbers):
    """The same tasks in each split."""

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return super().tasks(spec, "train", count)


class Renames(Numbers):
    """The same tasks in each split, by other names."""

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return [Task(spec, f"{split}-{i}", split) for i in range(count)]

    def number(self, task: Task) -> str:
        return task.id.rpartition("-")[2]


class SameFiles(Renames):
    """The same files in each split, by other names."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        made = []
        for i in range(count):
            path = Path(self._folder, f"{split}-{i}.txt")  # copies, even
            path.write_text(str(i))
            made.append(Task(spec, f"{split}-{i}", split, str(path)))
        return made

    def reset(self, task: Task) -> Start:
        started = super().reset(task)
        return Start(f"{started.observation} This is {task.split}.")


class Rows(Numbers):
    """All its tasks are rows of one file, and are numbered anew in each split."""

    def __init__(self, folder: str) -> None:
        self._file = Path(folder, "rows.jsonl")

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        self._file.write_text("rows")
        named = super().tasks(spec, split, count)
        return [Task(task.family, task.id, split, str(self._file)) for task in named]


class Repeats(Numbers):
    """The last task is the first one again."""

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        found = super().tasks(spec, split, count)
        return [*found[:-1], found[0]] if count > 1 else found


class Few(Numbers):
    """Has three tasks for each split, and returns them whatever is asked for."""

    def __init__(self, most: int = 3) -> None:
        self._most = most

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return super().tasks(spec, split, min(count, self._most))
