"""TextWorld games: a text adventure in a house, won by following its objective.

Families are named as in the paper: ``w2-o3-q4`` is a game of 2 rooms, 3 objects and a quest of 4 actions, made by
``tw-make custom``; ``tw-simple-sparse``, ``-balanced`` and ``-dense`` are ``tw-make tw-simple`` with those rewards (tests:
with ``--test``, see `SimpleGames`). TextWorld's challenges are ``tw-coin_collector-level5`` (1 to 300),
``tw-treasure_hunter-level3`` (1 to 30) and ``tw-cooking-recipe2-take1-go6-open-cook-cut-drop`` (what is not needed is left out).
``games`` are a user's own, see `textworld_own`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.environment.textworld.game import GRAMMAR, OBSERVATION_FORMAT, Game, imported
from lit_agents.environment.textworld.generate import game_maker, games
from lit_agents.environment.textworld.index import Row, verify
from lit_agents.environment.textworld.own_games import OWN, own_tasks
from lit_agents.errors import BadInput
from lit_agents.system.cache import cache_folder
from lit_agents.system.files import made_folder
from lit_agents.system.processes import makers
from lit_agents.types import Task

SEEDS = {
    "test": range(1, 10_001),
    "validation": range(20_001, 30_001),
    "train": range(30_001, 40_001),
    "sft": range(40_001, 50_001),
}
"""The seeds of each split. No two splits share one."""


class TextWorld(TextEnvironment):
    """TextWorld games, made when first asked for and kept.

    An observation is the room's name from the status line and the game's reply. What the agent carries is told at the
    start only: changes are in the replies, which stay in the conversation, and repeating it costs tokens every turn.

    Args:
        folder: where games are kept; by default ``textworld`` in the package's cache.
        workers: processes that make games; by default one per core.
        seeds: by split, the first and the last seed, e.g. ``{train: [1, 5000], test: [5001, 6000]}``; a split that is not named
            has those of `SEEDS`. The same seed gives the same game to everybody, apart from ``tw-simple`` and ``tw-cooking``,
            whose games are other ones in each split.
        games: of ``games``: a user's own ``.z8`` files (with their ``.json``), folders or glob patterns, by split or in one list.
    """

    repeatable = True

    def __init__(
        self,
        folder: str | None = None,
        workers: int | None = None,
        seeds: dict[str, list[int]] | None = None,
        games: str | list[str] | dict[str, str] | dict[str, list[str]] | None = None,
    ) -> None:
        self._folder, self._workers, self._games = folder, workers, games
        self._seeds = seed_ranges(seeds or {})
        self._given = f" --seeds '{json.dumps(seeds)}'" if seeds else ""
        self._game: Game | None = None

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        """Games in the order of their seeds; see `textworld_games.games` for those that are left out."""
        if spec == OWN:
            _must_be_installed()
            return own_tasks(self._games, split, count)
        game_maker(spec, split)
        seeds = self._seeds_of(split, count)
        folder = (Path(self._folder).expanduser() if self._folder else cache_folder("textworld")) / spec / split
        if count > 0:
            _must_be_installed()
            made_folder("folder", folder)
        rows = games(spec, folder, seeds, count, makers(self._workers))
        where = f" --folder {self._folder}" if self._folder else ""
        command = (
            f"python -m lit_agents.tasks textworld --spec {spec} --split {split} --count {count}{where}{self._given}"
        )
        return [_task(spec, split, folder, row, command) for row in rows]

    def reset(self, task: Task) -> Start:
        """Start the interpreter, or start the game again if it is the one that was played last."""
        for path in (Path(task.path), Path(task.path).with_suffix(".json")):
            if not path.is_file():  # without its .json a game starts, but never says that it is won
                raise BadInput(str(path), "this half of the game's pair of files is missing.", "Make the games again.")
        if self._game is None or self._game.path != task.path:
            self.close()
            self._game = Game(task.path)
        return self._game.start()

    def step(self, action: str) -> Transition:
        """Play the last line of the action that is not empty, if it is one command to the game."""
        return self._playing().step(action)

    def close(self) -> None:
        """End the interpreter."""
        if self._game is not None:
            self._game.close()
            self._game = None

    def expert_action(self) -> str | None:
        """The walkthrough's next command, or after a detour that of TextWorld's planner."""
        return self._playing().expert_action()

    def admissible_actions(self) -> list[str]:
        """All commands that would succeed now."""
        return list(self._playing().shadow().admissible_commands)

    def prepare_hints(self) -> None:
        """TextWorld itself, which takes a second."""
        imported("textworld")

    def fingerprint(self) -> Mapping[str, str]:
        """TextWorld's version, the layout of observations, and what of an action is played."""
        _must_be_installed()
        imported("jericho")  # what plays, once for all sessions
        return {
            "textworld": version("textworld"),
            "observation": OBSERVATION_FORMAT,
            "commands": GRAMMAR,
            "admissible": "hidden",
        }

    def _seeds_of(self, split: str, count: int) -> range:
        if split not in self._seeds:
            raise BadInput("split", f"there is no {split!r}.", f"Choose one of {', '.join(SEEDS)}.")
        if count > len(self._seeds[split]):
            raise BadInput("count", f"{split} has {len(self._seeds[split])} seeds, not {count}.", "Ask for fewer.")
        return self._seeds[split]

    def _playing(self) -> Game:
        if self._game is None:
            raise RuntimeError("no episode is under way")
        return self._game


def _must_be_installed() -> None:
    """Looked for only: importing it would cost every run a second."""
    found = None
    with suppress(ImportError):  # a finder may say no in this way too
        found = find_spec("textworld")
    if found is None:
        raise BadInput("textworld", "it is not installed.", "Run: pip install textworld")


def seed_ranges(given: Mapping[str, Sequence[int]]) -> dict[str, range]:
    """The seeds of each split, the first and the last one included.

    Raises:
        BadInput: a split that there is not, no range, or two ranges with a seed in common.
    """
    found = dict(SEEDS)
    for split, ends in given.items():
        if split not in SEEDS:
            raise BadInput("seeds", f"there is no split {split!r}.", f"Choose of {', '.join(SEEDS)}.")
        if len(ends) != 2 or not 0 <= ends[0] <= ends[1] < 2**32:
            reason = f"{split} has {list(ends)}, which is not a first and a last seed from 0 to {2**32 - 1}."
            raise BadInput("seeds", reason, f"Write {split}: [1, 5000].")
        found[split] = range(ends[0], ends[1] + 1)
    for one, other in combinations(found, 2):
        first, second = max(found[one].start, found[other].start), min(found[one].stop, found[other].stop)
        if first < second:
            own = " (its default)" if other not in given else ""
            own = " (the former's is its default)" if one not in given else own
            reason = f"{one} and {other} share seeds {first} to {second - 1}{own}."
            raise BadInput("seeds", reason, "Give them ranges that do not overlap.")
    return found


def _task(spec: str, split: str, folder: Path, row: Row, command: str) -> Task:
    verify(folder, row, f"Delete {folder / str(row.seed)}.z8 and .json and run {command}")
    labels = {"difficulty": spec, "quest_length": str(row.steps)}
    return Task(spec, str(row.seed), split, str(folder / f"{row.seed}.z8"), row.sha256, row.rewards, labels)
