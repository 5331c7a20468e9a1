"""The challenges that come with TextWorld, by name: coin collector, treasure hunter and cooking."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lit_agents.errors import BadInput

LEVELS = {"coin_collector": 300, "treasure_hunter": 30}
"""Challenges that have levels, from 1 to this."""
ROOMS_AT_MOST = 100
FOODS = {"train": "train", "sft": "train", "validation": "valid", "test": "test"}
"""The foods and preparations of TextWorld's cooking games behind each split: test games ask for some that training never has."""
COOKING = re.compile(r"tw-cooking-recipe(\d+)(?:-take(\d+))?(?:-go(\d+))?(-open)?(-cook)?(-cut)?(-drop)?")
LEVELLED = re.compile(r"tw-(coin_collector|treasure_hunter)-level(\d+)")
EXAMPLES = "tw-coin_collector-level5, tw-treasure_hunter-level3, or tw-cooking-recipe2-take1-go6-open-cook-cut-drop"


@dataclass(frozen=True)
class ChallengeGames:
    """``tw-make tw-NAME``, with its options."""

    name: str
    settings: Mapping[str, Any]

    def make(self, seed: int, path: str) -> None:
        """Write the pair of files, ``path`` being the ``.z8``."""
        from textworld.generator import compile_game

        challenge = importlib.import_module(f"textworld.challenges.tw_{self.name}.{self.name}")
        options = game_options(seed, path)
        compile_game(challenge.make(dict(self.settings), options), options)


def game_options(seed: int, path: str) -> Any:
    """TextWorld's, for one game."""
    import textworld

    options = textworld.GameOptions()
    options.seeds, options.path, options.file_ext = seed, path, ".z8"
    return options


def challenge(spec: str, split: str) -> ChallengeGames | None:
    """The challenge that a spec names, as it is made for a split; None if it names none.

    Raises:
        BadInput: one that there is not, or options that do not go together.
    """
    if match := LEVELLED.fullmatch(spec):
        return _levelled(match[1], int(match[2]))
    if match := COOKING.fullmatch(spec):
        return _cooking(match, split)
    if spec.startswith(("tw-coin_collector", "tw-treasure_hunter", "tw-cooking")):
        raise BadInput("spec", f"{spec!r} names no challenge of TextWorld.", f"Write {EXAMPLES}.")
    return None


def _levelled(name: str, level: int) -> ChallengeGames:
    if not 1 <= level <= LEVELS[name]:
        raise BadInput("spec", f"tw-{name} has no level {level}.", f"Choose one from 1 to {LEVELS[name]}.")
    rooms = ((level - 1) // 100 + 1) * ((level - 1) % 100 + 1)
    if name == "coin_collector" and rooms > ROOMS_AT_MOST:
        reason = f"level {level} has {rooms} rooms, and TextWorld makes games of at most {ROOMS_AT_MOST}."
        raise BadInput("spec", reason, "Choose another level.")
    return ChallengeGames(name, {"level": level})


def _cooking(match: re.Match[str], split: str) -> ChallengeGames:
    recipe, take, go = int(match[1]), int(match[2] or 0), int(match[3] or 1)
    way_out = "Write recipe1 to recipe5, take0 to as many as the recipe has, and go1, go6, go9 or go12."
    if not 1 <= recipe <= 5 or take > recipe or go not in (1, 6, 9, 12):
        raise BadInput("spec", f"{match[0]!r} names no cooking games.", way_out)
    skills = {name: bool(match[i]) for i, name in enumerate(("open", "cook", "cut", "drop"), start=4)}
    # Another recipe seed than tw-make's default would draw a second recipe for one house; recipes differ by the game's seed.
    others = {**skills, "recipe_seed": 0, "split": FOODS.get(split, split)}
    return ChallengeGames("cooking", {"recipe": recipe, "take": take, "go": go, **others})
