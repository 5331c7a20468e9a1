"""ALFWorld's handcoded expert: rules that look into one receptacle after another, as a person who does not know the room would.

Where its rules are stuck it draws any command at random or looks around, and now and then goes in circles. So it plays a game
ahead, with other random numbers until it wins within 50 commands, and what it did, but for looking around and closing what it
opened, is the demonstration. It needs the game's ``traj_data.json``; the planner, which knows where everything is, does not.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lit_agents.environment.alfworld.archive import TRAJECTORY
from lit_agents.environment.alfworld.game import Game
from lit_agents.errors import BadInput

PATIENCE = 100
"""Commands until it gives up an attempt."""
SHORT = 50
"""Commands of an attempt that is good enough: the limit of most work on ALFWorld."""
ATTEMPTS = 24
IDLE = ("look", "inventory", "examine", "close")
"""Commands that change nothing, and the closing of what was opened: a seventh of what it does, and no task asks for it."""


def handcoded_walkthrough(game: Game) -> list[str]:
    """Commands of its first attempt that is short, or else of the shortest one, none if none wins; the game is at its start then.

    Raises:
        BadInput: the game has no ``traj_data.json``.
    """
    if not game.path.with_name(TRAJECTORY).is_file():
        way_out = "Unpack the archive with the annotations too (json_2.1.1_json.zip), or take the planner."
        raise BadInput(
            str(game.path), f"there is no {TRAJECTORY} beside it, which the handcoded expert reads.", way_out
        )
    best: list[str] = []
    for attempt in range(ATTEMPTS):
        with _random_numbers(f"{game.path.parent.name} {attempt}"):
            won = _shortened(game, _attempt(game, len(best) or PATIENCE))
        best = won or best
        if 0 < len(best) <= SHORT:
            break
    game.start()
    return best


def _shortened(game: Game, played: list[str]) -> list[str]:
    """The same commands without those that no task asks for and without those that do nothing then, where that wins too."""
    game.start()
    for command in played:
        if not command.startswith(IDLE):
            game.step(command)  # what is not possible is not played: opening what was not closed
    return game.played if game.won else played


def _attempt(game: Game, patience: int) -> list[str]:
    """Commands that win, fewer than so many, or none."""
    experts = importlib.import_module("alfworld.agents.expert")
    agent: Any = experts.HandCodedTWAgent(max_steps=patience)
    agent.reset(str(game.path))
    agent.observe(game.start())
    played, command = list[str](), "look"
    while len(played) < patience - 1:
        feedback, _ = game.step(command)
        played.append(command)
        if game.won:
            return played
        state = {"feedback": feedback, "facts": game.facts(), "admissible_commands": game.commands}
        try:
            action = agent.act(_State(state), 0, False, _in_its_words(command))
        except (experts.HandCodedAgentTimeout, experts.HandCodedAgentFailed):
            break
        command = action if action in game.commands else "look"
    return []


def _in_its_words(command: str) -> str:
    """It says "move", as the games do now, but still waits for a "put" to believe that its hands are empty."""
    return f"put{command.removeprefix('move')}" if command.startswith("move ") else command


@contextmanager
def _random_numbers(key: str) -> Iterator[None]:
    """It draws from those of the whole process, which get their state back."""
    theirs = random.getstate()
    random.seed(key)
    try:
        yield
    finally:
        random.setstate(theirs)


class _State(dict[str, Any]):
    """A game's state as the expert reads it: by key and by attribute."""

    __getattr__ = dict.__getitem__
