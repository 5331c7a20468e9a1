"""One running TextWorld game: what of an action is played, and what of the game's text is shown.

It is played by the interpreter itself (``jericho``), of which ``textworld.start`` is a wrapper that takes a second to
import and half a second for each game.
"""

from __future__ import annotations

import importlib
import json
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from lit_agents.environment.base import Start, Transition
from lit_agents.errors import BadInput

PROMPT = """\
You play a text game and want to win it. Reply with one command that starts with a verb, such as: open the door
Goal: {objective}
{state}"""
CUE = "\nCommand:"
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
CARRIED = re.compile(r"<inventory>\n(.*)</inventory>", re.DOTALL)
SCORE = re.compile(r"<score>\n(-?\d+)")
EXTRAS = re.compile(r"<(score|moves)>[^<]*</\1>\n?")
"""The game says the moves with the score."""
WON, LOST = "*** The End ***", "*** You lost! ***"
AFTER_THE_END = "Would you like to RESTART"


class Game:
    """A running game.

    The interpreter that is played gives little besides its text, at about 0.5 ms a command. What needs the game's logic
    (the expert after a detour, the possible commands) costs 5 ms and more a command, so it comes from a second
    interpreter, the shadow, that is started when first asked and then plays the same commands.

    Args:
        path: the ``.z8``, with its ``.json`` beside it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with warnings.catch_warnings(action="ignore"):  # it cannot read the score from memory; it is read from the text
            # Without a seed the interpreter's random numbers depend on the time; it takes 0 for none.
            self._interpreter = imported("jericho").FrotzEnv(path, 1)
        # Asked for once the game tells it at every step, so it is asked in a game that is not played.
        told = CARRIED.search(self._interpreter.step("tw-extra-infos inventory")[0])
        self._carried = told[1].strip() if told else ""
        game = json.loads(Path(path).with_suffix(".json").read_text())
        self._objective: str = game["objective"].strip()
        self._walkthrough: list[str] = game["metadata"].get("walkthrough") or []
        self._max_score = float(sum(quest["reward"] for quest in game["quests"]))
        self._shadow: Any = None
        self._shadow_state: Any = None
        self._shadow_played = -1
        self._over = True

    def start(self) -> Start:
        """A new episode."""
        text, _ = self._interpreter.reset()
        self._interpreter.step("tw-extra-infos score")
        # The trace tells a command that was carried out from one that was refused; it is cut from what is shown.
        self._interpreter.step("tw-trace-actions")
        self._played: list[str] = []
        self._score, self._over, self._shadow_played = 0.0, False, -1
        first_room = self._show(text[text.index("\n-= ") :])
        state = f"{first_room}\n{self._carried}"
        return Start(PROMPT.format(objective=self._objective, state=state) + CUE, self._max_score)

    def step(self, action: str) -> Transition:
        """Play one command."""
        if self._over:
            raise RuntimeError("the episode is over")  # the interpreter would take it for an answer to "RESTART ...?"
        command, refusal = _command(action)
        if refusal:
            return Transition(f"{self._room}: {refusal}{CUE}", self._score, valid=False)
        self._played.append(command)
        told, *_ = self._interpreter.step(command)
        if score := SCORE.search(told):  # a command that takes no turn does not tell it
            self._score = float(score[1])
        won, lost = WON in told, LOST in told
        self._over = won or lost
        observation = self._show(told) + ("" if self._over else CUE)
        return Transition(observation, self._score, self._over, won=won, lost=lost, valid=bool(SUCCESS.search(told)))

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
            textworld = imported("textworld")
            tracked = textworld.EnvInfos(policy_commands=True, admissible_commands=True)
            with warnings.catch_warnings(action="ignore"):
                self._shadow = textworld.start(self.path, request_infos=tracked)
        if self._shadow_played < 0:
            self._shadow_state, self._shadow_played = self._shadow.reset(), 0
        for command in self._played[self._shadow_played :]:
            self._shadow_state, _, _ = self._shadow.step(command)
            self._shadow_played += 1
        return self._shadow_state

    def close(self) -> None:
        """Both interpreters."""
        self._interpreter.close()
        if self._shadow is not None:
            self._shadow.close()

    def _show(self, feedback: str) -> str:
        """The room and what was said, without status line, prompt, trace, score and empty lines."""
        if status := STATUS.search(feedback):
            self._room, feedback = status["room"], feedback[: status.start()]
        text = HEADING.sub("", TRACE.sub("", EXTRAS.sub("", feedback.partition(AFTER_THE_END)[0])))
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


def imported(name: str) -> ModuleType:
    """A module of TextWorld's.

    Raises:
        BadInput: there is none.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BadInput("textworld", f"it cannot be imported ({error}).", "Run: pip install textworld") from error
