"""Worlds that do what a test wants; a module of their own, since session processes import them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.environment.toy import CorridorWorld
from lit_agents.types import Task

TASK = Task("puppet", "1", "train")


class Puppet(TextEnvironment):
    """Does what the action says; every observation is the number of its process."""

    hints = "not prepared"

    def __init__(self, forbidden: str = "") -> None:
        self.forbidden = forbidden

    def prepare_hints(self) -> None:
        self.hints = f"prepared in {os.getpid()}"

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return [TASK] * count

    def reset(self, task: Task) -> Start:
        if task.id == "bad":
            raise ValueError("no such house")
        return Start(str(os.getpid()))

    def step(self, action: str) -> Any:
        verb, _, rest = action.partition(" ")
        return getattr(self, f"do_{verb}")(rest) if hasattr(self, f"do_{verb}") else Transition(str(os.getpid()), 0.0)

    def close(self) -> None:
        pass

    def expert_action(self) -> str:
        return "win"

    def do_hints(self, rest: str) -> Transition:
        return Transition(self.hints, 0.0)

    def do_raise(self, rest: str) -> None:
        raise RuntimeError("the lamp is broken")

    def do_leave(self, rest: str) -> None:
        raise SystemExit(0)

    def do_grow(self, rest: str) -> Transition:
        self.kept = bytes(int(rest) * 1_000_000).replace(b"\0", b"1")  # pages that are written are held
        return Transition("grown", 0.0)

    def do_sleep(self, rest: str) -> Transition:
        time.sleep(float(rest))
        return Transition("slept", 0.0)

    def do_hang(self, rest: str) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
        while True:
            time.sleep(1)

    def do_exit(self, rest: str) -> None:
        os._exit(int(rest))

    def do_fault(self, rest: str) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def do_print(self, rest: str) -> Transition:
        print(rest, flush=True)
        os.system(f"echo {rest}")
        return Transition("printed", 0.0)

    def do_spawn(self, rest: str) -> Transition:
        return Transition(str(subprocess.Popen(["sleep", "1000"]).pid), 0.0)

    def do_garbage(self, rest: str) -> object:
        return {
            "none": None,
            "bytes": Transition(b"dark", 0.0),  # type: ignore[arg-type]
            "nan": Transition("dark", float("nan")),
            "text": Transition("dark", "1"),  # type: ignore[arg-type]
            "early": Transition("dark", 0.0, won=True),
            "both": Transition("dark", 0.0, terminated=True, won=True, lost=True),
            "taken": Transition("dark", 0.0, signals={"gain": 1.0}),
            "lambda": Transition("dark", 0.0, signals={"f": lambda: 0}),  # type: ignore[dict-item]
            "surrogate": Transition("\ud800", 0.0),
        }[rest]

    def do_long(self, rest: str) -> Transition:
        return Transition("x" * int(rest), 0.0)

    def do_win(self, rest: str) -> Transition:
        return Transition("won", 1.0, terminated=True, won=True)


class Unimportable(Puppet):
    """Builds nowhere but here."""

    def __setstate__(self, state: dict[str, object]) -> None:
        raise ImportError("libhouse.so is missing")


class WrongStart(CorridorWorld):
    def reset(self, task: Task) -> Any:
        return super().reset(task).observation


class EmptyStart(CorridorWorld):
    def reset(self, task: Task) -> Start:
        super().reset(task)
        return Start(" \n", float(task.rewards))


class Changed(CorridorWorld):
    """Its transitions have the fields given."""

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.fields = fields

    def step(self, action: str) -> Transition:
        return Transition(**{**vars(super().step(action)), **self.fields})


class NotATransition(CorridorWorld):
    def step(self, action: str) -> Any:
        return "Hall.", 1.0, False


class RaisesOnJunk(CorridorWorld):
    def step(self, action: str) -> Transition:
        action.encode()
        return super().step(action)


class Leaks(CorridorWorld):
    """Remembers how many steps it ever took."""

    steps = 0

    def step(self, action: str) -> Transition:
        self.steps += 1
        transition = super().step(action)
        return Transition(**{**vars(transition), "observation": f"Hall {self.steps}."})


class Random(CorridorWorld):
    def step(self, action: str) -> Transition:
        return Transition(**{**vars(super().step(action)), "observation": os.urandom(4).hex()})


class ClosesOnce(CorridorWorld):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise ValueError("closed already")
        self.closed = True


class Unpicklable(CorridorWorld):
    def __init__(self) -> None:
        super().__init__()
        self.key = lambda: 0


class PoorExpert(CorridorWorld):
    def expert_action(self) -> str:
        return "stay"


class ForgetfulExpert(CorridorWorld):
    """Its plan is made for the first step."""

    steps = 0

    def reset(self, task: Task) -> Start:
        self.steps = 0
        return super().reset(task)

    def step(self, action: str) -> Transition:
        self.steps += 1
        return super().step(action)

    def expert_action(self) -> str:
        return super().expert_action() if self.steps < 4 else "stay"


class ShiftingTasks(CorridorWorld):
    calls = 0

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        self.calls += 1
        return super().tasks(spec, split, count + self.calls)[self.calls :]


class SharedTasks(CorridorWorld):
    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return super().tasks(spec, "train", count)
