"""ALFWorld's handcoded expert: rules that look into one receptacle after another, as a person who does not know the room would.

Where its rules are stuck it draws any command at random, and now and then goes in circles: in one attempt it wins nine official
games of ten. So it plays a game ahead, with other random numbers until it wins, and what it did is the demonstration. It needs
the game's ``traj_data.json``; the planner, which knows where everything is, does not.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lit_agents.environment.alfworld_files import TRAJECTORY
from lit_agents.environment.alfworld_play import Game
from lit_agents.errors import BadInput

PATIENCE = 200
"""Actions until it gives up an attempt, as in the package."""
ATTEMPTS = 8


def handcoded_walkthrough(game: Game) -> list[str]:
    """Commands of its first attempt that wins, none if none does; the game is at its start afterwards.

    Raises:
        BadInput: the game has no ``traj_data.json``.
    """
    if not game.path.with_name(TRAJECTORY).is_file():
        way_out = "Unpack the archive with the annotations too (json_2.1.1_json.zip), or take the planner."
        raise BadInput(
            str(game.path), f"there is no {TRAJECTORY} beside it, which the handcoded expert reads.", way_out
        )
    won: list[str] = []
    for attempt in range(ATTEMPTS):
        with _random_numbers(f"{game.path.parent.name} {attempt}"):
            won = _attempt(game)
        if won:
            break
    game.start()
    return won


def _attempt(game: Game) -> list[str]:
    experts = importlib.import_module("alfworld.agents.expert")
    agent: Any = experts.HandCodedTWAgent(max_steps=PATIENCE)
    agent.reset(str(game.path))
    agent.observe(game.start())
    played, command = list[str](), "look"
    while len(played) < PATIENCE:
        feedback, _ = game.step(command)
        played.append(command)
        if game.won:
            return played
        state = {"feedback": feedback, "facts": game.facts(), "admissible_commands": game.commands}
        try:
            action = agent.act(_State(state), 0, False, command)
        except (experts.HandCodedAgentTimeout, experts.HandCodedAgentFailed):
            break
        command = action if action in game.commands else "look"
    return []


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
