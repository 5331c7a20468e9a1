"""A user's own TextWorld games: ``.z8`` files, each with the ``.json`` that TextWorld writes beside it.

They are named by split, or in one list. From a list each game has its split by the hash of its content, so that it keeps its
split wherever the file lies and whatever other games there are: of ten games about six are ``train``, two ``sft``, one
``validation`` and one ``test``.
"""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lit_agents.environment.split_overlap import SPLITS
from lit_agents.environment.textworld.game import Game
from lit_agents.environment.textworld.index import stamp
from lit_agents.errors import BadInput
from lit_agents.types import Task

OWN = "games"
"""What such games are called where tasks are named."""
SHARES = ("train",) * 6 + ("sft",) * 2 + ("validation", "test")
"""Of ten games."""
SERIAL = slice(18, 24)
"""The day of compilation in the header of a story file (Z-Machine Standards, 11.1), which is no part of the game."""
Named = str | list[str] | dict[str, str] | dict[str, list[str]]
"""Files, folders or glob patterns; by split, or for all splits."""


@dataclass(frozen=True)
class OwnGame:
    """One game, read and won once by its walkthrough, if it has one."""

    path: Path
    sha256: str
    """Of the story without its day of compilation, and of the ``.json``."""
    steps: int
    """Length of the walkthrough; 0 for none."""
    rewards: int
    """Number of times the score rises on it; 1 without one."""


def own_tasks(named: Named | None, split: str, count: int) -> list[Task]:
    """The first games of a split, in the order of their hashes.

    Raises:
        BadInput: no games are named, one cannot be used, two splits share one, or there are fewer.
    """
    if named is None:
        way_out = "Name some: --data.environment.init_args.games 'my_games/*.z8' (tasks: --games)."
        raise BadInput("games", "no games of your own are named.", way_out)
    if split not in SPLITS:
        raise BadInput("split", f"there is no {split!r}.", f"Choose one of {', '.join(SPLITS)}.")
    found = _by_split(named)[split]
    if count > len(found):
        raise BadInput(
            "count",
            f"there are {len(found)} games of your own for {split}, not {count}.",
            "Ask for fewer, or name more.",
        )
    return [_task(game, split) for game in found[:count]]


def _task(game: OwnGame, split: str) -> Task:
    labels = {"difficulty": OWN} | ({"quest_length": str(game.steps)} if game.steps else {})
    name = f"{game.path.stem}-{game.sha256[:8]}"
    return Task(OWN, name, split, str(game.path), game.sha256, game.rewards, labels)


def _by_split(named: Named) -> dict[str, list[OwnGame]]:
    if isinstance(named, Mapping):
        if wrong := [split for split in named if split not in SPLITS]:
            raise BadInput("games", f"there is no split {wrong[0]!r}.", f"Choose of {', '.join(SPLITS)}.")
        found = {split: _games(named.get(split, [])) for split in SPLITS}
    else:
        games = _games(named)
        found = {split: [game for game in games if SHARES[int(game.sha256, 16) % 10] == split] for split in SPLITS}
    owners: dict[str, tuple[str, OwnGame]] = {}
    for split, games in found.items():
        for game in games:
            if game.sha256 in owners:
                there, other = owners[game.sha256]
                reason = f"{other.path} ({there}) and {game.path} ({split}) are the same game."
                raise BadInput("games", reason, "Name it once.")
            owners[game.sha256] = split, game
    return found


def _games(named: str | Sequence[str]) -> list[OwnGame]:
    paths: dict[Path, None] = {}
    for text in [named] if isinstance(named, str) else named:
        paths |= dict.fromkeys(_paths(text))
    games = [_read(str(path), *(stamp(half) for half in _pair(path))) for path in paths]
    return sorted(games, key=lambda game: game.sha256)


def _paths(text: str) -> list[Path]:
    """Files that a path, a folder (with those below it) or a glob pattern names."""
    path = Path(text).expanduser()
    if path.is_file() and path.suffix != ".z8":
        raise BadInput(text, "it is no .z8 file.", "Compile the game for the Z-machine: tw-make ... --output game.z8")
    names = path.rglob("*.z8") if path.is_dir() else glob.iglob(str(path), recursive=True)
    found = sorted(Path(name).resolve() for name in names if Path(name).suffix == ".z8")
    found = [path.resolve()] if path.is_file() else found
    if not found:
        raise BadInput(
            text, "no .z8 file is there.", "Name a .z8 file, a folder, or a pattern such as 'my_games/*.z8'."
        )
    return found


def _pair(path: Path) -> tuple[Path, Path]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        reason = "the .json that TextWorld writes beside it is missing; without it nothing says what wins the game."
        raise BadInput(str(path), reason, "Put it there: tw-make writes both.")
    return path, beside


@lru_cache(maxsize=100_000)
def _read(path: str, *stamps: tuple[int, int]) -> OwnGame:
    """Cached by the files' sizes and times of modification."""
    story, beside = (half.read_bytes() for half in _pair(Path(path)))
    digest = hashlib.sha256(story[: SERIAL.start] + b"000000" + story[SERIAL.stop :] + beside).hexdigest()
    try:
        content = json.loads(beside)
        walkthrough, quests = content["metadata"].get("walkthrough") or [], content["quests"]
        scored = bool(content["objective"] and sum(quest["reward"] for quest in quests) > 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it is not what TextWorld writes beside a game ({type(error).__name__}: {error})."
        raise BadInput(
            str(Path(path).with_suffix(".json")), reason, "Make the game again with TextWorld 1.7."
        ) from error
    if not scored:
        raise BadInput(path, "the game has no objective, or a win scores nothing.", "Leave it out.")
    rewards = _rises(path, walkthrough) if walkthrough else 1
    return OwnGame(Path(path), digest, len(walkthrough), rewards)


def _rises(path: str, walkthrough: Sequence[str]) -> int:
    """How many times the score rises on the walkthrough.

    Raises:
        BadInput: it does not win.
    """
    game, score, rises, won = Game(path), 0.0, 0, False
    try:
        game.start()
        for command in walkthrough:
            answer = game.step(command)
            score, rises, won = answer.score, rises + (answer.score > score), answer.won
            if answer.terminated:
                break
    finally:
        game.close()
    if not won:
        reason = "its own walkthrough does not win it, so that no expert could demonstrate it."
        raise BadInput(path, reason, "Leave it out, or make it again.")
    return rises
