"""One running ALFWorld game: the planner library moves the world, and what is said comes from the game's own grammar.

The package's own environment derives the text of every possible command with a context-sensitive grammar after each step, which
is nine tenths of a step; here a command is its template with names filled in. It translates the planning problem four times
for each load and reset; here once, and the result is kept (`lit_agents.environment.alfworld.pddl_cache`).

The planner is GPL-3 and comes with the extra ``[alfworld]``; it is imported where a game is played or asked for its versions. One
game at a time in a process: its library has one state.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

from lit_agents.environment.alfworld.pddl_cache import Translation, translation
from lit_agents.errors import BadInput

KEYS = ("pddl_domain", "grammar", "pddl_problem", "solvable", "walkthrough")
UNKNOWN = "UNKNOWN GOAL"
NOTHING = "Nothing happens."
"""The reply to whatever is not possible here and now."""
TASK = re.compile(r"Your task is to: ([^\"\n]*?)\.?(?=\"|\n|$)")
SAME = re.compile(r"\[\{(\w+)\.name \|[^\]]*\]")
"""What a template says of one of the action's parameters under a condition that the action has anyway: it is just its name."""


def read_game(path: Path) -> dict[str, Any]:
    """The content of a ``game.tw-pddl``.

    Raises:
        BadInput: it is no such file, of an older format, or marked as one that cannot be won.
    """
    way_out = "Unpack the games again: python -m lit_agents.tasks alfworld --source ARCHIVE"
    try:
        game: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(str(path), f"it cannot be read ({error}).", way_out) from error
    lacking = [key for key in KEYS if key not in game] if isinstance(game, dict) else list(KEYS)
    if lacking:
        raise BadInput(str(path), f"it lacks {', '.join(lacking)}.", way_out)
    texts = [isinstance(game[key], str) for key in ("pddl_domain", "grammar", "pddl_problem")]
    walkthrough = game["walkthrough"] or []
    if not all(texts) or not isinstance(walkthrough, list) or not all(isinstance(c, str) for c in walkthrough):
        raise BadInput(str(path), "it has something else where its texts or its walkthrough should be.", way_out)
    if 'template :: "put {o} in/on {r}"' in game["grammar"] or 'template :: "move {o} to {r}"' not in game["grammar"]:
        reason = 'it has the old format, in which things are "put" and not "moved".'
        raise BadInput(str(path), reason, "Use the games of ALFWorld's release 2.1.3 (json_2.1.3_tw-pddl.zip).")
    if not game["solvable"]:
        raise BadInput(str(path), "it is marked as one that cannot be won.", "Leave it out.")
    return game


def goal_of(game: Mapping[str, Any]) -> str:
    """The sentence of the task as the game itself says it, without full stop."""
    found = TASK.search(game["grammar"])
    return found[1].strip() if found else ""


class Game:
    """A running game.

    Args:
        path: the ``game.tw-pddl``.

    Raises:
        BadInput: it is none that can be played.
    """

    running: ClassVar[Game | None] = None
    """The one whose state the planner's library has."""

    def __init__(self, path: Path) -> None:
        self.path, self.game = path, read_game(path)
        _forget()
        self._translation = self._translated(optimize=False)
        self.goal = goal_of(self.game)
        self._logic = _logic(TASK.sub(f"Your task is to: {UNKNOWN}.", self.game["grammar"]))
        self._names: dict[str, str] = {}

    def _translated(self, optimize: bool) -> Translation:
        try:
            return translation(self.game["pddl_domain"], self.game["pddl_problem"], optimize)
        except Exception as error:  # of many kinds
            reason = f"its planning problem cannot be read ({type(error).__name__}: {error})."
            raise BadInput(str(self.path), reason, "Leave it out, or get it again.") from error

    def start(self) -> str:
        """Begin; the first feedback."""
        library = _library()
        Game.running = self
        library.load_sas(self._translation.sas.encode())
        try:
            self.state = _state(self._translation, library)
        except KeyError as error:  # the translator has put a problem of two values in its place
            raise BadInput(str(self.path), "nothing can reach its goal.", "Leave it out, or get it again.") from error
        if not self._names:
            self._names, kinds = _names(self.state), self._translation.objects
            self._infos = {name: _info(name, kinds[name], shown) for name, shown in self._names.items()}
        self._can_replan = self.won = False
        self.played: list[str] = []
        self._look_around()
        return self._say("#intro#", {}).replace(UNKNOWN, self.goal)

    @property
    def commands(self) -> list[str]:
        """All that are possible now, in alphabetical order."""
        return sorted(self._possible)

    def step(self, command: str) -> tuple[str, bool]:
        """Play a command; what is said, and whether it was possible."""
        name_of = self._possible.get(command)
        if name_of is None:
            return NOTHING, False
        self._must_be_running()
        number, name, effects = name_of
        self.played.append(command)
        atoms = (_pddl().Atom * effects)()
        _library().apply_operator(number, atoms)
        for atom in atoms:
            fact = atom.get_fact(self._translation.objects)
            self.state.remove_fact(fact.negate())
            self.state.add_fact(fact)
        self.won = bool(_library().check_goal())
        action, *arguments = name.split()
        feedback = self._say(self._logic.actions[action].feedback_rule, self._mapping(action, arguments))
        self._look_around()
        return feedback, True

    def plan(self) -> list[str]:
        """The commands from here to the win, none if there is none: the stored walkthrough while it is kept to, or the planner's.

        The planner takes 15 ms, now and then seconds, and in some rooms with many places for two things, minutes.
        """
        walkthrough: list[str] = self.game["walkthrough"] or []
        done = len(self.played)
        kept_to = not self.won and done < len(walkthrough) and self.played == walkthrough[:done]
        if kept_to and walkthrough[done] in self._possible:  # one that is not possible would be said for ever
            return walkthrough[done:]
        self._must_be_running()
        library = _library()
        if not self._can_replan:
            library.load_sas_replan(self._translated(optimize=True).sas.encode())
            self._can_replan = True
        if self.won or not library.replan(False):
            return []
        operators = (_downward().Operator * library.get_last_plan_length())()
        library.get_last_plan(operators)
        return [self._command(operator.name) for operator in operators]

    def _must_be_running(self) -> None:
        if Game.running is not self:
            raise RuntimeError(f"{self.path}: another game was begun in this process, which can play one at a time")

    def facts(self) -> list[Any]:
        """What holds now, with the names that are shown; what the handcoded expert looks at."""
        logic = importlib.import_module("textworld.logic")
        return [
            logic.Proposition(f.name, [logic.Variable(self._names.get(v.name, v.name), v.type) for v in f.arguments])
            for f in self.state.facts
        ]

    def _look_around(self) -> None:
        """Which commands are possible: command -> number, name and effects of the planner's operator; the first one counts."""
        library = _library()
        operators = (_downward().Operator * library.get_applicable_operators_count())()
        library.get_applicable_operators(operators)
        self._possible: dict[str, tuple[int, str, int]] = {}
        for operator in operators:
            name = operator.name
            self._possible.setdefault(self._command(name), (operator.id, name, operator.nb_effect_atoms))

    def _command(self, operator: str) -> str:
        """An operator as the player types it."""
        action, *arguments = operator.split()
        parameters = [name.strip("?") for name, _ in self._translation.parameters[action]]
        given = {name: self._names.get(a, a) for name, a in zip(parameters, arguments, strict=False)}
        return str(SAME.sub(r"{\1}", self._logic.actions[action].template).format(**given))

    def _mapping(self, action: str, arguments: Sequence[str]) -> dict[Any, Any]:
        logic = importlib.import_module("textworld.logic")
        parameters = self._translation.parameters[action]
        return {
            logic.Placeholder(name.strip("?"), kind): logic.Variable(value, kind)
            for (name, kind), value in zip(parameters, arguments, strict=False)
        }

    def _say(self, rule: str, mapping: dict[Any, Any]) -> str:
        variables = {placeholder.name: self._infos[variable.name] for placeholder, variable in mapping.items()}
        context = {"state": self.state, "facts": (), "variables": variables, "mapping": mapping}
        return str(self._logic.grammar.derive(rule, context | {"entity_infos": self._infos}))


def _names(state: Any) -> dict[str, str]:
    """What everything that is anywhere is called: type and number, in the package's own order."""
    misc = importlib.import_module("alfworld.agents.utils.misc")
    infos = {variable.name: SimpleNamespace(id=variable.name) for fact in state.facts for variable in fact.arguments}
    demangler = misc.Demangler(game_infos=infos, shuffle=False)
    return {name: demangler.demangle_alfred_name(name) for name in infos}


def _info(name: str, kind: str, shown: str) -> Any:
    """What the grammar looks at."""
    info = importlib.import_module("textworld.generator.game").EntityInfo(name, kind)
    info.name, info.definite, info.indefinite = shown, "the", "a"
    return info


def _state(translation: Translation, library: Any) -> Any:
    """What holds at first; the grammar asks it."""
    logic = importlib.import_module("textworld.logic")
    rules = logic.GameLogic()
    for name, above in translation.types:
        with suppress(ValueError):  # one that is there already
            rules.types.add(logic.Type(name, above))
    kinds = translation.objects
    facts = [
        logic.Proposition(predicate, [logic.Variable(name, kinds[name]) for name in arguments])
        for predicate, arguments in translation.facts
    ]
    atoms = (_pddl().Atom * library.get_state_size())()
    library.get_state(atoms)
    facts += [fact for atom in atoms if not (fact := atom.get_fact(kinds)).is_negation]
    return logic.State(rules, facts)


def _forget() -> None:
    """Textworld keeps every proposition there ever was, a megabyte for each game."""
    importlib.import_module("textworld.logic")
    importlib.import_module("mementos.core")._memento_cache.clear()


@lru_cache(4)
def _logic(grammar: str) -> Any:
    """Actions and texts of a grammar; nearly all games have the same one but for the goal."""
    return _pddl().GameLogic(domain="", grammar=grammar)


def _pddl() -> ModuleType:
    return importlib.import_module("textworld.envs.pddl.logic")


def _downward() -> ModuleType:
    return importlib.import_module("fast_downward")


@cache
def _library() -> Any:
    """The planner, a copy of 33 MB that is loaded once for each process."""
    return _downward().load_lib()
