"""Toy worlds that lack something."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lit_agents.environment.base import Start, TextEnvironment, Transition
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


class NoValidation(EchoWorld):
    """Has no task to choose a checkpoint on."""

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return [] if split == "validation" else super().tasks(spec, split, count)


class Dark(EchoWorld):
    """From the first action in training on, no episode of a split begins any more, until somebody has mended it.

    Args:
        split: e.g. validation.
        folder: gets ``night``, and from somebody ``mended``.
    """

    def __init__(self, split: str, folder: str) -> None:
        super().__init__()
        self._split, self._folder, self._training = split, Path(folder).absolute(), False

    def reset(self, task: Task) -> Start:
        self._training = task.split == "train"
        if task.split == self._split and (self._folder / "night").exists() and not (self._folder / "mended").exists():
            raise RuntimeError("the lights went out")
        return super().reset(task)

    def step(self, action: str) -> Transition:
        if self._training:
            (self._folder / "night").touch()
        return super().step(action)


class Mute(EchoWorld):
    """Has no expert."""

    def expert_action(self) -> None:
        return None


class Stumped(EchoWorld):
    """Its expert breaks whenever it is asked, or the first time alone.

    Args:
        folder: made when it was asked the first time; empty: it never knows anything.
    """

    def __init__(self, folder: str = "") -> None:
        super().__init__()
        self._folder = folder and Path(folder).absolute()

    def expert_action(self) -> str | None:
        if self._folder and self._folder.is_dir():
            return super().expert_action()
        if self._folder:
            self._folder.mkdir()
        raise RuntimeError("what it should read is not there")


class Broken(EchoWorld):
    """From the first action in one of its tests on they break.

    Args:
        folder: gets ``night``.
        sound: so many tests are spared.
    """

    def __init__(self, folder: str, sound: int = 0) -> None:
        super().__init__()
        self._night, self._sound, self._breaks = Path(folder).absolute() / "night", sound, False

    def reset(self, task: Task) -> Start:
        self._breaks = task.split == "test" and int(task.id) > self._sound
        if self._breaks and self._night.exists():
            raise RuntimeError("the lights went out")
        return super().reset(task)

    def step(self, action: str) -> Transition:
        if self._breaks:
            self._night.touch()
            raise RuntimeError("the lights went out")
        return super().step(action)


class Scarce(EchoWorld):
    """Has the same tasks for training and demonstrations."""

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        served = super().tasks(spec, "train" if split == "sft" else split, count)
        return [replace(task, split=split) for task in served]


class Swapped(EchoWorld):
    """Tests on the tasks that others demonstrate."""

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        other = {"test": "sft", "sft": "test"}.get(split, split)
        return [replace(task, split=split) for task in super().tasks(spec, other, count)]


class TrainsOnAnotherTest(EchoWorld):
    """The test tasks of ``r3-w2`` are the training tasks of ``r2-w2``."""

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        own = (spec, split) != ("r3-w2", "test")
        found = super().tasks(spec, split, count) if own else super().tasks("r2-w2", "train", count)
        return [replace(task, split=split) for task in found]


class Sluggish(EchoWorld):
    """Thinks for a moment in the first test task."""

    def reset(self, task: Task) -> Start:
        self._slow = (task.split, task.id) == ("test", "1")
        return super().reset(task)

    def step(self, action: str) -> Transition:
        if self._slow:
            time.sleep(0.05)
        return super().step(action)


KINDS = ("crash", "hang", "garbage", "death", "slow start")


class Unreliable(TextEnvironment):
    """Another world, and in some of its episodes a fault.

    Args:
        world: what is played.
        folder: where the attempts at each task are counted, so that the faults of a task's n-th attempt are the same ones.
        share: of the episodes that have a fault, each kind as often.
        splits: that have any.
    """

    def __init__(self, world: TextEnvironment, folder: str, share: float = 0.3, splits: tuple[str, ...] = ("train",)):
        self._world, self._folder, self._share, self._splits = world, Path(folder).absolute(), share, splits
        self._fault, self._left = "", 0

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return self._world.tasks(spec, split, count)

    def reset(self, task: Task) -> Start:
        stream = random.Random(f"{task.split} {task.id} {self._attempt(task)}")
        faulty = task.split in self._splits and stream.random() < self._share
        self._fault, self._left = stream.choice(KINDS) if faulty else "", stream.randint(1, 2)
        if self._fault == "slow start":
            time.sleep(60)
        return self._world.reset(task)

    def step(self, action: str) -> Transition:
        self._left -= 1
        if self._left or not self._fault:
            return self._world.step(action)
        if self._fault == "crash":
            raise RuntimeError("the lights went out")
        if self._fault == "hang":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(60)
        if self._fault == "death":
            os._exit(3)
        return Transition("", float("nan"))

    def close(self) -> None:
        self._world.close()

    def expert_action(self) -> str | None:
        return self._world.expert_action()

    def admissible_actions(self) -> list[str]:
        return self._world.admissible_actions()

    def fingerprint(self) -> Mapping[str, str]:
        return self._world.fingerprint()

    def _attempt(self, task: Task) -> int:
        self._folder.mkdir(exist_ok=True)
        for number in itertools.count():
            try:
                (self._folder / f"{task.split}-{task.id}-{number}").touch(exist_ok=False)  # one process alone makes it
            except FileExistsError:
                continue
            return number
        raise AssertionError
