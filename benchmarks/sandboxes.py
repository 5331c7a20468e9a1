"""Episodes of repair per minute with the model's time taken out, for every kind of sandbox that works here.

    python benchmarks/sandboxes.py [--episodes 32] [--at_once 8] [--folder FOLDER] [--package xmltodict==1.0.4]

The known fix of each task is played: look, edit, submit. The baseline, in the same run, is the sandbox that protects from
nothing; containers are also made anew for every episode, instead of being kept. Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from lit_agents.environment.pool.pool import EnvPool
from lit_agents.environment.swe import SweGym
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.bubblewrap import BubblewrapSandbox
from lit_agents.sandbox.docker import DockerSandbox
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.system.cache import cache_folder
from lit_agents.types import Task


def world(sandbox: Sandbox, options: argparse.Namespace) -> SweGym:
    return SweGym(str(options.folder), sandbox, {"test": [options.package]})


def script(swe: SweGym, task: Task) -> list[str]:
    """What the expert does."""
    swe.reset(task)
    actions: list[str] = []
    while not actions or actions[-1] != "submit":
        actions.append(str(swe.expert_action()))
        swe.step(actions[-1])
    return actions


def alone(swe: SweGym, tasks: list[Task], scripts: list[list[str]], fresh: bool) -> dict[str, float]:
    """Median seconds of a reset, a command and a submission, one episode at a time."""
    found: dict[str, list[float]] = {"reset": [], "command": [], "submit": []}
    for task, actions in zip(tasks, scripts, strict=True):
        if fresh:
            swe.close()
        for kind, act in (
            ("reset", lambda task=task: swe.reset(task)),
            *((_kind(a), lambda a=a: swe.step(a)) for a in actions),
        ):
            start = time.perf_counter()
            act()
            found[kind].append(time.perf_counter() - start)
    swe.close()
    return {kind: statistics.median(times) for kind, times in found.items()}


def _kind(action: str) -> str:
    return "submit" if action == "submit" else "command"


def together(swe: SweGym, tasks: list[Task], scripts: list[list[str]], at_once: int) -> float:
    """Episodes per minute, so many at once; the first ones, which start processes, are not counted."""
    with EnvPool(swe, at_once, step_timeout=600.0) as pool:
        pool.reset(dict(enumerate(tasks[:at_once])))
        start, won = time.perf_counter(), 0
        for first in range(0, len(tasks), at_once):
            live = dict(enumerate(zip(tasks[first : first + at_once], scripts[first : first + at_once], strict=True)))
            pool.reset({number: task for number, (task, _) in live.items()})
            for turn in range(max(len(actions) for _, actions in live.values())):
                acting = {number: actions[turn] for number, (_, actions) in live.items() if turn < len(actions)}
                won += sum(end.won for end in pool.step(acting).values())  # type: ignore[union-attr]
        assert won == len(tasks), f"{won} of {len(tasks)} won"
        return 60 * len(tasks) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--at_once", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=cache_folder("swe"))
    parser.add_argument("--package", default="xmltodict==1.0.4")
    options = parser.parse_args()
    swe = world(SubprocessSandbox(), options)
    tasks = swe.tasks("generated", "test", options.episodes)
    scripts = [script(swe, task) for task in tasks]
    swe.close()
    print(f"{len(tasks)} episodes of {options.package}, {statistics.mean(map(len, scripts)):.1f} turns each")
    print(f"{'':42}{'reset':>9}{'command':>9}{'submit':>9}{'episodes/min':>14}{'of baseline':>13}")
    baseline = 0.0
    kinds: list[tuple[str, type[Sandbox], bool]] = [
        ("subprocess (baseline)", SubprocessSandbox, False),
        ("bubblewrap", BubblewrapSandbox, False),
        ("container, kept", DockerSandbox, False),
        ("container, new for every episode", DockerSandbox, True),
    ]
    for name, kind, fresh in kinds:
        if trouble := kind().trouble():
            print(f"{name:42}{trouble}")
            continue
        times = alone(world(kind(), options), tasks[:8], scripts[:8], fresh)
        row = f"{name:42}" + "".join(f"{1000 * times[key]:6.0f} ms" for key in ("reset", "command", "submit"))
        if not fresh:
            rate = together(world(kind(), options), tasks, scripts, options.at_once)
            baseline = baseline or rate
            row += f"{rate:14.1f}{rate / baseline:13.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
