"""ALFWorld's handcoded expert: rules that look into one receptacle after another, as a person who does not know the room would.

It needs the game's ``traj_data.json`` and sees every step; the planner, which knows where everything is, needs neither.
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
"""Actions until it gives up."""


class HandcodedExpert:
    """Follows a game from its start.

    Args:
        game: it has just begun.
        feedback: what was said then.

    Raises:
        BadInput: the game has no ``traj_data.json``.
    """

    def __init__(self, game: Game, feedback: str) -> None:
        if not game.path.with_name(TRAJECTORY).is_file():
            way_out = "Unpack the archive with the annotations too (json_2.1.1_json.zip), or take the planner."
            raise BadInput(
                str(game.path), f"there is no {TRAJECTORY} beside it, which the handcoded expert reads.", way_out
            )
        self._game = game
        self._random = random.Random(str(game.path.parent.name)).getstate()
        self._agent: Any = importlib.import_module("alfworld.agents.expert").HandCodedTWAgent(max_steps=PATIENCE)
        self._agent.reset(str(game.path))
        self._agent.observe(feedback)
        self.action: str | None = "look"
        """What it would do now; None when it has given up or nothing is left to do."""

    def follow(self, command: str, feedback: str) -> None:
        """See what a command led to, and think of the next one."""
        game = self._game
        if game.won or self.action is None:
            self.action = None
            return
        state = {"feedback": feedback, "facts": game.facts(), "admissible_commands": game.commands}
        failed = importlib.import_module("alfworld.agents.expert")
        try:
            with self._own_random_numbers():
                action = self._agent.act(_State(state), 0, False, command)
        except (failed.HandCodedAgentTimeout, failed.HandCodedAgentFailed):
            self.action = None
            return
        self.action = action if action in game.commands else "look"

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """It draws from those of the whole process."""
        theirs = random.getstate()
        random.setstate(self._random)
        try:
            yield
        finally:
            self._random = random.getstate()
            random.setstate(theirs)


class _State(dict[str, Any]):
    """A game's state as the expert reads it: by key and by attribute."""

    __getattr__ = dict.__getitem__
