"""TextWorld through the pool against TextWorld's own ways of playing many games.

    python benchmarks/environments.py [--sessions 64] [--games 64] [--steps 20]

Baselines, on the same games, commands and cores, in the same run:
  textworld_gym    TextWorld's batch environment, one process a game, with the information that published agents ask for
                   at every step: description, inventory, admissible commands and more
  textworld_start  ``textworld.start`` with nothing but score, won and lost, one game after the other on one core

A game is played by random commands and then its own walkthrough, as many commands for each game. Every score, win, loss
and text (but for its layout) of ours is checked against each baseline's. Only steps are timed, resets apart; of each side
the best of two runs counts. The last line is one JSON object. An EOFError may be printed: so textworld_gym's processes end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lit_agents.environment.base import Start, Transition
from lit_agents.environment.pool.pool import EnvPool
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.types import Task

SPEC = "w2-o3-q4"
STARTED, TURNS, SIZE = 64, 8, 8  # games that begin; turns and group size of an iteration's episodes
VERBS = ("take", "open", "close", "examine", "drop", "eat", "unlock")
PLAIN = ("look", "inventory", "wait", "go north", "go south", "go east", "go west", "xyzzy", "take", "help", "goal")
NOT_SAID = re.compile(r"\[[^\]]*\]|^-= .* =-$|\n>? {20,}-=.*|Would you like to RESTART[^\0]*", re.MULTILINE)
"""The trace, the room's heading, the status line, and the question after the end."""

Step = tuple[list[str], float, bool, bool]
"""The words said, the score, won, lost."""
Game = tuple[Callable[[str], Any], Callable[[Any], Step]]
"""What plays a command, and what reads its answer."""


@dataclass(frozen=True)
class Run:
    """What one side did."""

    played: dict[str, list[Step]]
    """By the game's path."""
    seconds: float
    """In steps."""

    @property
    def rate(self) -> float:
        """Steps a second."""
        return sum(map(len, self.played.values())) / self.seconds


@contextmanager
def one_core() -> Iterator[None]:
    """This process and those it starts, on the last core it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def commands(task: Task, steps: int) -> list[str]:
    """Random ones that do not end the game, then the walkthrough."""
    game = json.loads(Path(task.path).with_suffix(".json").read_text())
    names = [info["name"] for _, info in game["infos"] if info["name"]]
    walkthrough = game["metadata"]["walkthrough"]
    world, rng = TextWorld(), random.Random(task.id)
    while True:
        some = [*PLAIN, *(f"{rng.choice(VERBS)} {rng.choice(names)}" for _ in PLAIN)]
        chosen = [*rng.choices(some, k=steps - len(walkthrough)), *walkthrough]
        world.reset(task)
        if not any(world.step(command).terminated for command in chosen[:-1]):
            world.close()
            return chosen


def ours(step: Any) -> Step:
    """A transition of the pool's."""
    assert isinstance(step, Transition), step
    said = step.observation.partition(": ")[2].removesuffix("\nCommand:")
    return said.split(), step.score, step.won, step.lost


def theirs(feedback: str, score: float, won: bool, lost: bool) -> Step:
    """A step of TextWorld's."""
    return NOT_SAID.sub("", feedback).split(), float(score), won, lost


def through_pool(plan: dict[str, list[str]], tasks: list[Task], sessions: int) -> Run:
    """Ours: as many games at once as there are sessions."""
    played, seconds = {task.path: list[Step]() for task in tasks}, 0.0
    with EnvPool(TextWorld(), sessions) as pool:
        for first in range(0, len(tasks), sessions):
            batch = tasks[first : first + sessions]
            pool.reset(dict(enumerate(batch)))
            for moves in zip(*(plan[task.path] for task in batch), strict=True):
                begun = time.perf_counter()
                answers = pool.step(dict(enumerate(moves)))
                seconds += time.perf_counter() - begun
                for task, answer in zip(batch, answers.values(), strict=True):
                    played[task.path].append(ours(answer))
    return Run(played, seconds)


def serially(plan: dict[str, list[str]], begin: Callable[[str], Game]) -> Run:
    """One game after the other."""
    played, seconds = dict[str, list[Step]](), 0.0
    for path, moves in plan.items():
        step, read = begin(path)
        begun = time.perf_counter()
        answers = [step(command) for command in moves]
        seconds += time.perf_counter() - begun
        played[path] = [read(answer) for answer in answers]
    return Run(played, seconds)


def in_process(path: str) -> Game:
    """Ours, without the pool."""
    world = TextWorld()
    world.reset(Task(SPEC, "", "train", path))
    return world.step, ours


def bare(path: str) -> Game:
    """The interpreter, which tells neither score nor end."""
    import jericho

    game = jericho.FrotzEnv(path, 1)
    game.reset()
    return game.step, lambda _: ([], 0.0, False, False)


def textworld_start(path: str) -> Game:
    """The plain loop."""
    import textworld

    env = textworld.start(path, request_infos=textworld.EnvInfos(score=True, won=True, lost=True))
    env.reset()
    return env.step, lambda answer: theirs(answer[0].feedback, answer[1], answer[0].won, answer[0].lost)


def textworld_gym(plan: dict[str, list[str]], tasks: list[Task], sessions: int) -> tuple[Run, float]:
    """The usual way, and the seconds until the first games have begun, TextWorld being imported before."""
    import textworld.gym

    wanted = ("description", "inventory", "admissible_commands", "objective", "max_score", "won", "lost", "entities")
    infos = textworld.EnvInfos(**dict.fromkeys(wanted, True), extras=["uuid"])
    uuids = {json.loads(Path(t.path).with_suffix(".json").read_text())["metadata"]["uuid"]: t.path for t in tasks}
    played = {task.path: list[Step]() for task in tasks}
    begun = time.perf_counter()
    options = {"batch_size": sessions, "asynchronous": True, "max_episode_steps": 10_000}
    env = textworld.gym.make(textworld.gym.register_games(list(plan), infos, **options))
    seconds, started = 0.0, 0.0
    for _ in range(0, len(tasks), sessions):
        _, told = env.reset()
        started = started or time.perf_counter() - begun
        paths = [uuids[uuid] for uuid in told["extra.uuid"]]  # it shuffles the games
        for moves in zip(*(plan[path] for path in paths), strict=True):
            begun = time.perf_counter()
            texts, scores, _, told = env.step(list(moves))
            seconds += time.perf_counter() - begun
            for path, *step in zip(paths, texts, scores, told["won"], told["lost"], strict=True):
                played[path].append(theirs(*step))
    env.close()
    return Run(played, seconds), started


def start_up(tasks: list[Task]) -> float:
    """Seconds from nothing until all games have begun, each in its process."""
    begun = time.perf_counter()
    with EnvPool(TextWorld(), len(tasks)) as pool:
        starts = pool.reset(dict(enumerate(tasks)))
        seconds = time.perf_counter() - begun
    assert all(isinstance(start, Start) for start in starts.values()), starts
    return seconds


def iteration(plan: dict[str, list[str]], tasks: list[Task]) -> float:
    """Seconds of one iteration's episodes in a pool that is running: each task several times, some turns each."""
    members = dict(enumerate(task for task in tasks for _ in range(SIZE)))
    with EnvPool(TextWorld(), len(members)) as pool:
        pool.reset({number: tasks[-1 - number % len(tasks)] for number in members})
        begun = time.perf_counter()
        pool.reset(members)
        for turn in range(TURNS):
            pool.step({number: plan[task.path][turn] for number, task in members.items()})
        return time.perf_counter() - begun


def best(measure: Callable[[], Run]) -> Run:
    """Of two."""
    return max((measure() for _ in range(2)), key=lambda run: run.rate)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("sessions", 64), ("games", 64), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if args.games % args.sessions or args.steps < TURNS + 1:
        parser.error("--sessions must divide --games, and --steps be 9 at least")
    warnings.simplefilter("ignore")
    known = TextWorld().tasks(SPEC, "train", max(args.games, STARTED))
    tasks = known[: args.games]
    plan, cores = {task.path: commands(task, args.steps) for task in tasks}, len(os.sched_getaffinity(0))
    started = min(start_up(known[:STARTED]) for _ in range(2))
    share = min(iteration(plan, tasks[:SIZE]) for _ in range(2))
    pooled = partial(through_pool, plan, tasks, args.sessions)
    every = best(pooled)
    with one_core():
        single = best(pooled)
        interpreter, alone, serial = (best(partial(serially, plan, b)) for b in (bare, in_process, textworld_start))
    batch, their_start = max((textworld_gym(plan, tasks, args.sessions) for _ in range(2)), key=lambda b: b[0].rate)
    for run in (single, alone, serial, batch):
        for path, steps in every.played.items():
            if steps != run.played[path]:
                raise SystemExit(f"the sides differ in {path}:\n{steps}\n{run.played[path]}")
    won = sum(steps[-1][2] for steps in every.played.values())
    assert won, "no game was won, so nothing is known of wins"
    print(f"{len(tasks)} games of {SPEC}, {args.steps} commands each, {won} won; equal on all sides")
    print(f"{'':30}{'cores':>6}{'steps/s':>9}{'per core':>10}")
    rows = {"bare interpreter": (1, interpreter), "ours, in process": (1, alone), "ours, pool on one core": (1, single)}
    rows |= {"ours, pool": (cores, every), "textworld_start": (1, serial), "textworld_gym": (cores, batch)}
    for label, (used, run) in rows.items():
        print(f"{label:30}{used:>6}{run.rate:>9.0f}{run.rate / used:>10.0f}")
    print(
        f"{STARTED} games begun in {started:.2f} s; textworld_gym: {args.sessions} in {their_start:.2f} s after import"
    )
    print(f"{SIZE} tasks x {SIZE} episodes of {TURNS} turns: {share:.2f} s in the pool")
    ratios = {"textworld_gym": batch, "textworld_start": serial}
    result: dict[str, Any] = {"ratios": {name: round(every.rate / run.rate, 2) for name, run in ratios.items()}}
    result |= {f"startup_seconds_{STARTED}": round(started, 2), "iteration_seconds": round(share, 2)}
    result["steps_per_second_per_core"] = round(min(single.rate, every.rate / cores))
    print(json.dumps(result | {"textworld_start_on_one_core": round(single.rate / serial.rate, 2)}))  # isolation costs


if __name__ == "__main__":
    main()
