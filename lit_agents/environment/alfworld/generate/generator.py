"""New ALFWorld games of any of the six types, from the alfworld package alone; each is won once before it is kept.

``python -m lit_agents.environment.alfworld.generate.generator PARENT FOLDER TASK:SEED...`` is one worker. A game is
``FOLDER/NAME/seed_N`` and a row in the folder's ``index.jsonl``; rows are only ever appended, so a killed generation goes on
where it was.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from lit_agents.environment.alfworld.archive import GAME, INDEX, TRAJECTORY, TYPES, Row, row_of
from lit_agents.environment.alfworld.game import UNKNOWN, Game
from lit_agents.environment.alfworld.generate.rooms import Household, drawn
from lit_agents.errors import BadInput
from lit_agents.system.files import made_folder, text_lines
from lit_agents.system.processes import end_with_parent

ESCAPES = str.maketrans({"+": "_plus_", "-": "_minus_", ".": "_dot_", "|": "_bar_"})
LONGEST = 50
"""Actions of a plan."""
TRIES = 50
"""Draws that may be unsolvable before something else must be wrong."""


def generated(folder: Path, wanted: Sequence[tuple[str, int]], workers: int) -> list[Row]:
    """Rows of games by type and seed, those made first that are not there.

    Args:
        folder: of one split; its name is the split's.
        wanted: type as in `TYPES`' values, and seed.
        workers: processes that make them.

    Raises:
        BadInput: a game cannot be made.
    """
    made_folder("folder", folder)
    with FileLock(f"{folder}.lock"):  # of several processes that want games, one makes them
        rows = _known(folder)
        if missing := [key for key in wanted if key not in rows]:
            print(
                f"Making {len(missing)} ALFWorld games in {folder} (about a second each, once).",
                file=sys.stderr,
                flush=True,
            )
            _make(folder, missing, workers)
            rows = _known(folder)
    if lost := [key for key in wanted if key not in rows]:
        raise BadInput(str(folder), f"the game {lost[0][0]}, seed {lost[0][1]}, is not there.", "Delete the folder.")
    return [rows[key] for key in wanted]


def _known(folder: Path) -> dict[tuple[str, int], Row]:
    rows = {}
    with suppress(FileNotFoundError):
        for line in text_lines(folder / INDEX):
            with suppress(ValueError, TypeError):  # a line that a kill cut
                row = Row(**json.loads(line))
                if (folder / row.name / GAME).is_file():
                    rows[row.kind, int(row.name.rpartition("_")[2])] = row
    return rows


def _make(folder: Path, missing: Sequence[tuple[str, int]], workers: int) -> None:
    names = {short: name for name, short in TYPES.items()}
    orders = [f"{names[kind]}:{seed}" for kind, seed in missing]
    parts = [part for i in range(workers) if (part := orders[i::workers])]
    command = [
        sys.executable,
        "-P",
        "-m",
        "lit_agents.environment.alfworld.generate.generator",
        str(os.getpid()),
        str(folder),
    ]

    def run(part: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *part], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )

    with ThreadPoolExecutor(len(parts)) as pool:
        for done in pool.map(run, parts):
            if done.returncode:
                reason = f"games could not be made ({(done.stderr.strip().splitlines() or ['no words'])[-1][:300]})."
                raise BadInput(str(folder), reason, 'Is the extra there? pip install "lit_agents[alfworld]"')


def main(arguments: Sequence[str]) -> None:
    """One worker."""
    end_with_parent(int(arguments[0]))  # or it would go on beside those that a new start has
    folder = Path(arguments[1])
    for order in arguments[2:]:
        task, _, seed = order.partition(":")
        row = row_of(generate(task, int(seed), folder), folder.parent)
        with open(folder / INDEX, "ab", buffering=0) as index:  # one write; a line that a kill cut stays alone
            index.write(f"\n{json.dumps(asdict(row))}\n".encode())


def generate(task: str, seed: int, folder: Path) -> Path:
    """Write one game below a folder; the same one for the same seed and version of alfworld.

    Args:
        task: one of the six types, as the games name them.
        seed: of all that is drawn.
        folder: gets ``TASK-OBJECT-None-DESTINATION-SCENE/seed_N`` with the two files of a game.

    Raises:
        RuntimeError: no draw could be won.
    """
    rng = random.Random(f"{task} {seed}")
    for _ in range(TRIES):
        household = drawn(task, rng)
        path = folder / household.name / f"seed_{seed}"
        with tempfile.TemporaryDirectory(prefix=".drawn-", dir=made_folder("folder", folder)) as scratch:
            if _won(_content(household, seed), Path(scratch) / "game" / GAME):
                shutil.rmtree(path, ignore_errors=True)  # of a kill, before its row was written
                path.parent.mkdir(exist_ok=True)
                return (Path(scratch) / "game").rename(path) / GAME
    raise RuntimeError(f"none of {TRIES} games of {task} that were drawn with seed {seed} could be won")


def _won(content: dict[str, Any], path: Path) -> bool:
    """Write a game and play the planner's commands; they become its walkthrough if they win."""
    path.parent.mkdir()
    trajectory = content.pop("trajectory")
    path.write_text(json.dumps(content))
    try:
        game = Game(path)
        game.start()
        plan = game.plan()
    except BadInput:  # nothing can reach the goal
        return False
    if not 0 < len(plan) <= LONGEST or game.won:
        return False
    for command in plan:
        game.step(command)
    path.write_text(json.dumps(content | {"walkthrough": plan}))
    path.with_name(TRAJECTORY).write_text(json.dumps(trajectory))
    return game.won


def _content(household: Household, seed: int) -> dict[str, Any]:
    info, goals = importlib.import_module("alfworld.info"), importlib.import_module("alfworld.gen.goal_library")
    goal, params = goals.gdict[household.task], household.params
    words = {"obj": household.target, "recep": household.destination, "toggle": household.lamp, "mrecep": ""}
    sentence = goal["templates"][household.template].format(**{k: v.lower() for k, v in words.items()})
    problem = "\n".join([*_problem(household, seed), goal["pddl"].format(**words).replace("#", "-")])
    grammar = Path(info.ALFRED_TWL2_PATH).read_text(encoding="utf-8").replace(UNKNOWN, sentence)
    trajectory = {"task_id": f"seed_{seed}", "task_type": household.task, "pddl_params": params}
    return {
        "pddl_domain": Path(info.ALFRED_PDDL_PATH).read_text(encoding="utf-8"),
        "grammar": grammar,
        "pddl_problem": problem,
        "solvable": True,
        "walkthrough": [],
        "trajectory": trajectory | {"turk_annotations": {"anns": []}, "plan": {"high_pddl": []}},
    }


def _problem(household: Household, seed: int) -> Iterator[str]:
    """The planning problem up to its goal."""
    constants = importlib.import_module("alfworld.gen.constants")
    room = household.room
    places = [f"loc_bar_{i + 1}_bar_0_bar_0_bar_30" for i in range(len(room.receptacles))]
    receptacles = [_id(name, i, name if name.endswith("Basin") else "") for i, name in enumerate(room.receptacles)]
    objects = [_id(name, len(receptacles) + i) for i, (name, _) in enumerate(room.objects)]
    start = "loc_bar_0_bar_0_bar_0_bar_30"
    object_types, receptacle_types = sorted({name for name, _ in room.objects}), sorted(set(room.receptacles))
    yield f"(define (problem generated_{seed})\n(:domain alfred)\n(:objects\nagent1 - agent"
    yield from (f"{name}Type - otype" for name in object_types)
    yield from (f"{name}Type - rtype" for name in receptacle_types)
    yield from (f"{name} - object" for name in objects)
    yield from (f"{name} - receptacle" for name in receptacles)
    yield from (f"{name} - location" for name in [start, *places])
    yield f")\n(:init\n(atLocation agent1 {start})"
    fits = constants.VAL_RECEPTACLE_OBJECTS
    for receptacle in receptacle_types:
        yield from (f"(canContain {receptacle}Type {name}Type)" for name in object_types if name in fits[receptacle])
    for name, receptacle, place in zip(room.receptacles, receptacles, places, strict=True):
        yield f"(receptacleType {receptacle} {name}Type)\n(receptacleAtLocation {receptacle} {place})"
        if name in constants.OPENABLE_CLASS_SET:
            yield f"(openable {receptacle})"
    yield from _objects(room.objects, objects, receptacles, places, constants)
    yield ")"


def _objects(
    drawn_: Sequence[tuple[str, int]],
    ids: Sequence[str],
    receptacles: Sequence[str],
    places: Sequence[str],
    constants: Any,
) -> Iterator[str]:
    for (name, where), thing in zip(drawn_, ids, strict=True):
        yield f"(objectType {thing} {name}Type)\n(inReceptacle {thing} {receptacles[where]})"
        yield f"(objectAtLocation {thing} {places[where]})"
        uses = {use: name in names for use, names in constants.VAL_ACTION_OBJECTS.items()}
        if not uses["Toggleable"]:
            yield f"(pickupable {thing})"
        yield from (f"({use.lower()} {thing})" for use, there in uses.items() if there)


def _id(name: str, number: int, ending: str = "") -> str:
    """An object of the simulator has its place in its name; here a number."""
    base = name.removesuffix("Basin") if ending else name
    return f"{base}|{number:+03d}.00|+00.00|+00.00{f'|{ending}' if ending else ''}".translate(ESCAPES)


if __name__ == "__main__":
    main(sys.argv[1:])
