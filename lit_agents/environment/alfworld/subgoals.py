"""How much of a household task is done: the conditions of the planning problem's goal, and those on the way to them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from lit_agents.errors import BadInput

TREATED = {"ishot", "isclean", "iscool"}


@dataclass(frozen=True)
class Goal:
    """What a planning problem's goal says."""

    target: str
    """Type of the thing, in lower case as the planner has it."""
    destination: str
    """Type of the receptacle; empty where it is to be looked at."""
    lamp: str
    treated: str
    """``ishot``, ``isclean``, ``iscool`` or nothing."""
    count: int
    """How many of it."""

    @property
    def steps(self) -> int:
        """Conditions in all: in hand once, treated, in its place, for each of the things; or in hand, lamp on, at the lamp."""
        return 3 if self.lamp else self.count * (3 if self.treated else 2)

    def done(self, facts: Iterable[Any]) -> int:
        """How many of them hold now, of the things for which most do.

        Args:
            facts: all that hold, as textworld's propositions.
        """
        held: dict[str, set[tuple[str, ...]]] = {}
        for fact in facts:
            held.setdefault(fact.name, set()).add(tuple(v.name for v in fact.arguments))
        things = [thing for thing, kind in held.get("objecttype", ()) if kind == self.target]
        in_hand = {thing for _, thing in held.get("holds", ())}
        if self.lamp:
            return self._looked_at(held, any(thing in in_hand for thing in things))
        places = [place for place, kind in held.get("receptacletype", ()) if kind == self.destination]
        inside, treated = held.get("inreceptacle", set()), {thing for (thing,) in held.get(self.treated, ())}
        best = 0
        for place in places:
            worth = {}
            for thing in things:
                there = (thing, place) in inside
                good = bool(self.treated) and thing in treated
                worth[thing] = (thing in in_hand or there or good) + good + (there and (good or not self.treated))
            best = max([best, *(sum(worth[thing] for thing in some) for some in combinations(things, self.count))])
        return best

    def _looked_at(self, held: dict[str, set[tuple[str, ...]]], in_hand: bool) -> int:
        lamps = {thing for thing, kind in held.get("objecttype", ()) if kind == self.lamp}
        shining = {lamp for (lamp,) in held.get("istoggled", ()) if lamp in lamps}
        here = {place for _, place in held.get("atlocation", ())}
        near = {receptacle for receptacle, place in held.get("receptacleatlocation", ()) if place in here}
        at_lamp = any(lamp in shining and receptacle in near for lamp, receptacle in held.get("inreceptacle", ()))
        return in_hand + bool(shining) + at_lamp


def goal_in(problem: str, named: str) -> Goal:
    """The goal of a planning problem.

    Args:
        problem: in PDDL.
        named: the game's file, for errors.

    Raises:
        BadInput: it is not one of the six.
    """
    text = problem.lower().partition("(:goal")[2]
    kinds = dict(re.findall(r"\(objecttype \?(\w+) (\w+)\)", text))
    places = set(re.findall(r"\(receptacletype \?\w+ (\w+)\)", text))
    treated = TREATED & set(re.findall(r"\((is\w+) \?\w+\)", text))
    lamps = {kinds[lamp] for lamp in re.findall(r"\(istoggled \?(\w+)\)", text) if lamp in kinds}
    things = set(kinds.values()) - lamps
    if len(things) != 1 or len(lamps) + len(places) != 1 or len(treated) > 1:
        raise BadInput(
            named, "its goal is not one of ALFWorld's six, so there is no progress to it.", 'Set score to "win".'
        )
    count = 2 if "(not (= " in text else 1
    return Goal(things.pop(), "".join(places), "".join(lamps), "".join(treated), count)
