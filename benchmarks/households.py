"""ALFWorld: our environment and pool against the package's own `AlfredTWEnv`, on the same games by the same commands.

    python benchmarks/households.py [--folder FOLDER --spec official-all] [--games 12]

Every game is won by its walkthrough. `alfred_tw_env` is one episode (reset and steps) of the package's environment, alone in its
process, over one of ours: of a game that is new, and of one whose translation is on disk. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median

from lit_agents.environment.alfworld import pddl_cache as alfworld_translation
from lit_agents.environment.alfworld.env import AlfWorld
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.types import Task

PARALLEL, MANY = 16, 64


def walkthrough(path: str) -> list[str]:
    commands: list[str] = json.loads(Path(path).read_text())["walkthrough"]
    return commands


def theirs(tasks: Sequence[Task]) -> dict[str, tuple[float, list[float]]]:
    """By game: seconds of reset and of each step, and the last observation checked to be a win."""
    from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

    with tempfile.TemporaryDirectory() as folder:
        for task in tasks:
            shutil.copytree(Path(task.path).parent, Path(folder).joinpath(*Path(task.path).parts[-3:-1]))
        kinds = list(range(1, 7))
        config = {
            "env": {"goal_desc_human_anns_prob": 0, "task_types": kinds, "domain_randomization": False, "expert_type": "planner"},
            "dataset": {"data_path": folder, "eval_id_data_path": folder, "eval_ood_data_path": folder,
                        "num_train_games": -1, "num_eval_games": -1},
            "general": {"training_method": "dqn"},
            "rl": {"training": {"max_nb_steps_per_episode": 50}},
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            env = AlfredTWEnv(config, train_eval="eval_out_of_distribution").init_env(batch_size=1)
        found = {}
        for _ in tasks:
            begun = time.perf_counter()
            _, infos = env.reset()
            reset, steps, done = time.perf_counter() - begun, [], [False]
            path = infos["extra.gamefile"][0]
            for command in walkthrough(path):
                begun = time.perf_counter()
                _, _, done, infos = env.step([command])
                steps.append(time.perf_counter() - begun)
            if not done[0]:
                raise SystemExit(f"the package's environment did not win {path} by its walkthrough")
            found[path] = (reset, steps)
        return found


def ours(world: AlfWorld, tasks: Sequence[Task]) -> dict[str, tuple[float, list[float]]]:
    """The same of ours, in this process."""
    found = {}
    for task in tasks:
        begun = time.perf_counter()
        world.reset(task)
        reset, steps = time.perf_counter() - begun, []
        for command in walkthrough(task.path):
            begun = time.perf_counter()
            last = world.step(command)
            steps.append(time.perf_counter() - begun)
        if not last.won:
            raise SystemExit(f"our environment did not win {task.path} by its walkthrough")
        found[task.path] = (reset, steps)
    return found


def in_the_pool(world: AlfWorld, tasks: Sequence[Task]) -> tuple[float, int]:
    """Seconds of `MANY` episodes, `PARALLEL` at once, and how many commands they had."""
    waiting, live, count = [tasks[i % len(tasks)] for i in range(MANY)], dict[int, list[str]](), 0
    with EnvPool(world, PARALLEL) as pool:
        pool.reset({0: tasks[0]})  # starts the helper
        begun = time.perf_counter()
        while waiting or live:
            free = [s for s in range(PARALLEL) if s not in live]
            new = {s: waiting.pop() for s in free[: len(waiting)]}
            for s, start in pool.reset(new).items():
                assert not isinstance(start, Failure), start
                live[s] = walkthrough(new[s].path)
            for s, step in pool.step({s: commands.pop(0) for s, commands in live.items()}).items():
                assert not isinstance(step, Failure), step
                count += 1
                if step.terminated:
                    assert step.won
                    del live[s]
        return time.perf_counter() - begun, count


def episode(found: Mapping[str, tuple[float, list[float]]]) -> float:
    return mean(reset + sum(steps) for reset, steps in found.values())


def described(name: str, found: Mapping[str, tuple[float, list[float]]]) -> str:
    resets, steps = [r for r, _ in found.values()], [s for _, all_ in found.values() for s in all_]
    return f"{name}: reset {1000 * median(resets):.0f} ms, step {1000 * median(steps):.1f} ms, episode {episode(found):.3f} s"


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--folder", help="where games are; by default the cache")
    made.add_argument("--spec", default="generated-all", help="which games")
    made.add_argument("--games", type=int, default=12)
    args = made.parse_args()
    world = AlfWorld(args.folder)
    tasks = world.tasks(args.spec, "test", args.games)
    world.fingerprint()  # imports
    world.reset(tasks[0])
    package = theirs(tasks)
    with tempfile.TemporaryDirectory() as empty:
        kept = alfworld_translation.cache_folder
        alfworld_translation.cache_folder = lambda name: Path(empty) / name  # type: ignore[assignment]
        alfworld_translation._translation.cache_clear()
        new = ours(AlfWorld(args.folder), tasks)
        alfworld_translation._translation.cache_clear()
        known = ours(AlfWorld(args.folder), tasks)
        seconds, count = in_the_pool(AlfWorld(args.folder), tasks)
        alfworld_translation.cache_folder = kept
    for name, found in (("AlfredTWEnv", package), ("ours, new games", new), ("ours, known games", known)):
        print(described(name, found))
    print(
        f"pool of {PARALLEL}: {MANY} episodes of {count} commands in {seconds:.2f} s, {count / seconds:.0f} commands/s"
    )
    ratios = {"alfred_tw_env_new": episode(package) / episode(new), "alfred_tw_env": episode(package) / episode(known)}
    print(json.dumps({"ratios": {k: round(v, 2) for k, v in ratios.items()}, "pool_seconds": round(seconds, 2)}))


if __name__ == "__main__":
    main()
