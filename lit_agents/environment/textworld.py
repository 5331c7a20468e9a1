"""TextWorld games: a text adventure in a house, won by following its objective.

Families are named as in the paper: ``w2-o3-q4`` is a game of 2 rooms, 3 objects and a quest of 4 actions, made by
``tw-make custom``; ``tw-simple-sparse``, ``-balanced`` and ``-dense`` are ``tw-make tw-simple`` with those rewards.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.environment.textworld_games import game_maker, games
from lit_agents.environment.textworld_index import Row, verify
from lit_agents.errors import BadInput
from lit_agents.paths import cache_folder
from lit_agents.types import Task

PROMPT = """\
You play a text game and want to win it. Reply with one command that starts with a verb, such as: open the door
Goal: {objective}
{state}"""
CUE = "\nCommand:"
SEEDS = {
    "test": range(1, 10_001),
    "validation": range(20_001, 30_001),
    "train": range(30_001, 40_001),
    "sft": range(40_001, 50_001),
}
"""The seeds of each split. No two splits share one."""
OBSERVATION_FORMAT = "1"
"""To be raised with any change of what the agent is shown."""

GRAMMAR = "last line that is not empty, letters digits ' - only, no meta commands; 1"
"""What reaches the interpreter; its number is to be raised with any change of `ALPHABET`, `META` or `LONGEST_COMMAND`."""
LONGEST_COMMAND = 150  # bytes; the interpreter cuts at 198
ALPHABET = re.compile(r"[A-Za-z0-9 '-]+")  # no punctuation: the parser takes "." and "," for the end of a command
META = re.compile(
    r"tw-.*|(transcri|superbri|restrict).*|quit|q|restart|restore|save|undo|script|noscript|unscript|verify|version|score"
    r"|notify|pronouns|nouns|brief|normal|long|short|verbose|again|g|oops|o|enable|disable"
)
"""First words in the games' dictionary that are no move in the world: they end it, write files, change how it is shown,
tell hidden facts (TextWorld's debugging), repeat or correct what was typed. The beginning of a long word is enough."""
NOT_A_VERB = "That's not a verb I recognise."
NOT_A_SENTENCE = "I didn't understand that sentence."
NO_COMMAND = "I beg your pardon?"

TRACE = re.compile(r"\[[^\]]*\]\n?")
SUCCESS = re.compile(r"^\[[^(\]][^\]]* - succeeded\]", re.MULTILINE)
STATUS = re.compile(r"\n>? *-= (?P<room>[^\n]*?) =--?\d+/\d+\s*\Z")
HEADING = re.compile(r"^-= [^\n]* =-$\n?", re.MULTILINE)
AFTER_THE_END = "Would you like to RESTART"


class TextWorld(TextEnvironment):
    """TextWorld games, made when first asked for and kept.

    An observation is the room's name from the status line and the game's reply. What the agent carries is told at the
    start only: changes are in the replies, which stay in the conversation, and repeating it costs tokens every turn.

    Args:
        folder: where games are kept; by default ``textworld`` in the package's cache.
        workers: processes that make games; by default one per core.
    """

    def __init__(self, folder: str | None = None, workers: int | None = None) -> None:
        self._folder, self._workers = folder, workers
        self._game: _Game | None = None

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        """Games in the order of their seeds; see `textworld_games.games` for those that are left out."""
        game_maker(spec)
        seeds = _seeds(split, count)
        folder = (Path(self._folder).expanduser() if self._folder else cache_folder("textworld")) / spec / split
        if count > 0:
            _textworld()
        rows = games(spec, folder, seeds, count, self._workers or os.cpu_count() or 1)
        where = f" --folder {self._folder}" if self._folder else ""
        command = f"python -m lit_agents.tasks textworld --spec {spec} --split {split} --count {count}{where}"
        return [_task(spec, split, folder, row, command) for row in rows]

    def reset(self, task: Task) -> Start:
        """Start the interpreter, or start the game again if it is the one that was played last."""
        for path in (Path(task.path), Path(task.path).with_suffix(".json")):
            if not path.is_file():  # without its .json a game starts, but never says that it is won
                raise BadInput(str(path), "this half of the game's pair of files is missing.", "Make the games again.")
        if self._game is None or self._game.path != task.path:
            self.close()
            self._game = _Game(task.path)
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

    def fingerprint(self) -> Mapping[str, str]:
        """The interpreter's version, the layout of observations, and what of an action is played."""
        version = str(_textworld().__version__)
        return {"textworld": version, "observation": OBSERVATION_FORMAT, "commands": GRAMMAR, "admissible": "hidden"}

    def _playing(self) -> _Game:
        if self._game is None:
            raise RuntimeError("no episode is under way")
        return self._game


def _seeds(split: str, count: int) -> range:
    if split not in SEEDS:
        raise BadInput("split", f"there is no {split!r}.", f"Choose one of {', '.join(SEEDS)}.")
    if count > len(SEEDS[split]):
        raise BadInput("count", f"{split} has {len(SEEDS[split])} seeds, not {count}.", "Ask for fewer.")
    return SEEDS[split]


def _task(spec: str, split: str, folder: Path, row: Row, command: str) -> Task:
    verify(folder, row, f"Delete {folder / str(row.seed)}.z8 and .json and run {command}")
    labels = {"difficulty": spec, "quest_length": str(row.steps)}
    return Task(spec, str(row.seed), split, str(folder / f"{row.seed}.z8"), row.sha256, row.rewards, labels)


class _Game:
    """A running game.

    The interpreter that is played gives little besides its text, at about 1 ms a command. What needs the game's logic
    (the expert after a detour, the possible commands) costs 5 ms and more a command, so it comes from a second
    interpreter, the shadow, that is started when first asked and then plays the same commands.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._env = _interpreter(path)
        game = json.loads(Path(path).with_suffix(".json").read_text())
        self._objective: str = game["objective"].strip()
        self._walkthrough: list[str] = game["metadata"]["walkthrough"]
        self._max_score = float(sum(quest["reward"] for quest in game["quests"]))
        self._shadow: Any = None
        self._shadow_state: Any = None
        self._shadow_played = -1
        self._over = True

    def start(self) -> Start:
        """A new episode."""
        state = self._env.reset()
        # The trace tells a command that was carried out from one that was refused; it is cut from what is shown.
        self._env.step("tw-trace-actions")
        self._played: list[str] = []
        self._score, self._over, self._shadow_played = 0.0, False, -1
        first_room = state.feedback[state.feedback.index("\n-= ") :]
        carried = str(state.inventory).strip()
        text = PROMPT.format(objective=self._objective, state=f"{self._show(first_room)}\n{carried}")
        return Start(text + CUE, self._max_score)

    def step(self, action: str) -> Transition:
        """Play one command."""
        if self._over:
            raise RuntimeError("the episode is over")  # the interpreter would take it for an answer to "RESTART ...?"
        command, refusal = _command(action)
        if refusal:
            return Transition(f"{self._room}: {refusal}{CUE}", self._score, valid=False)
        self._played.append(command)
        state, score, _ = self._env.step(command)
        self._score, self._over = float(score), bool(state["won"] or state["lost"])
        observation = self._show(state.feedback) + ("" if self._over else CUE)
        valid = SUCCESS.search(state.feedback) is not None
        return Transition(observation, self._score, self._over, won=state["won"], lost=state["lost"], valid=valid)

    def expert_action(self) -> str | None:
        """The walkthrough while it is kept to, which saves the shadow."""
        done = len(self._played)
        if self._played == self._walkthrough[:done] and done < len(self._walkthrough):
            return self._walkthrough[done]
        plan: list[str] = self.shadow().policy_commands
        return plan[0] if plan else None

    def shadow(self) -> Any:
        """The full state of the game, after the same commands."""
        if self._shadow is None:
            tracked = _textworld().EnvInfos(policy_commands=True, admissible_commands=True)
            with warnings.catch_warnings(action="ignore"):
                self._shadow = _textworld().start(self.path, request_infos=tracked)
        if self._shadow_played < 0:
            self._shadow_state, self._shadow_played = self._shadow.reset(), 0
        for command in self._played[self._shadow_played :]:
            self._shadow_state, _, _ = self._shadow.step(command)
            self._shadow_played += 1
        return self._shadow_state

    def close(self) -> None:
        """Both interpreters."""
        self._env.close()
        if self._shadow is not None:
            self._shadow.close()

    def _show(self, feedback: str) -> str:
        """The room and what was said, without status line, prompt, trace and empty lines."""
        if status := STATUS.search(feedback):
            self._room, feedback = status["room"], feedback[: status.start()]
        text = HEADING.sub("", TRACE.sub("", feedback.partition(AFTER_THE_END)[0]))
        return f"{self._room}: " + "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _command(action: str) -> tuple[str, str]:
    """What is to be played, and what is said instead if that must not reach the interpreter."""
    lines = [line.strip() for line in action.splitlines() if line.strip()]
    command = " ".join(lines[-1].split()).removesuffix(".") if lines else ""
    words = command.lower().split()
    if not words:
        return "", NO_COMMAND
    if len(command) > LONGEST_COMMAND or not ALPHABET.fullmatch(command) or "then" in words:
        return "", NOT_A_SENTENCE
    return ("", NOT_A_VERB) if META.fullmatch(words[0]) else (command, "")


def _interpreter(path: str) -> Any:
    """The part of `textworld.start` that reads what the game prints, without its logic, which takes .5 s to load."""
    infos = _textworld().EnvInfos(inventory=True)
    from textworld.envs import JerichoEnv
    from textworld.envs.wrappers.tw_inform7 import Inform7Data

    env = Inform7Data(JerichoEnv(infos))
    env.seed(0)  # by default the interpreter's random numbers depend on the time
    with warnings.catch_warnings(action="ignore"):  # it cannot read the score from memory; it is read from the text
        env.load(path)
    return env


def _textworld() -> ModuleType:
    try:
        return importlib.import_module("textworld")
    except ImportError as error:
        raise BadInput("textworld", f"it cannot be imported ({error}).", "Run: pip install textworld") from error
