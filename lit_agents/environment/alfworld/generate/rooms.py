"""Rooms drawn at random, and one of the six tasks in them: what a game is made from that needs no simulator and no download.

Everything in here is a draw; whether a game can be won is for the planner to say (`generator`).
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROOMS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "kitchen": {
        "Cabinet": (4, 8), "CounterTop": (2, 3), "Drawer": (3, 6), "Fridge": (1, 1), "Microwave": (1, 1), "SinkBasin": (1, 1),
        "GarbageCan": (1, 1), "DiningTable": (0, 1), "Shelf": (0, 3), "StoveBurner": (2, 4), "Toaster": (1, 1),
        "CoffeeMachine": (1, 1),
    },
    "bedroom": {
        "Bed": (1, 1), "Desk": (1, 2), "Drawer": (2, 6), "Dresser": (0, 1), "Shelf": (1, 6), "SideTable": (1, 2),
        "GarbageCan": (1, 1),
    },
    "living room": {
        "Sofa": (1, 1), "ArmChair": (1, 2), "CoffeeTable": (1, 1), "DiningTable": (0, 1), "SideTable": (1, 2), "Drawer": (1, 4),
        "Shelf": (1, 4), "TVStand": (1, 1), "GarbageCan": (1, 1),
    },
    "bathroom": {
        "Cabinet": (2, 4), "CounterTop": (1, 1), "SinkBasin": (1, 2), "Toilet": (1, 1), "ToiletPaperHanger": (1, 1),
        "TowelHolder": (1, 1), "HandTowelHolder": (1, 2), "BathtubBasin": (0, 1), "GarbageCan": (1, 1),
    },
}  # fmt: skip
"""How many there are of each receptacle, at least and at most."""
WHERE = {
    "pick_and_place_simple": tuple(ROOMS),
    "pick_two_obj_and_place": tuple(ROOMS),
    "look_at_obj_in_light": ("bedroom", "living room"),
    "pick_clean_then_place_in_recep": ("kitchen", "bathroom"),
    "pick_heat_then_place_in_recep": ("kitchen",),
    "pick_cool_then_place_in_recep": ("kitchen",),
}
NEEDS = {"clean": "Cleanable", "heat": "Heatable", "cool": "Coolable"}
"""What the target must be, by the verb in the task type's name."""
NOT_INTO = {"clean": {"SinkBasin"}, "heat": set[str](), "cool": {"Fridge"}}
"""Destinations that would make it no task."""
LAMPS = {"bedroom": "DeskLamp", "living room": "FloorLamp"}
UNDER_LAMPS = ("Desk", "SideTable", "Dresser", "CoffeeTable", "DiningTable")
CARRIED = {"Bowl", "Cup", "Mug", "Pan", "Plate", "Pot"}
"""They hold things, but are carried like any other."""
OBJECTS = 22
SCENE = {"kitchen": 1001, "living room": 1201, "bedroom": 1301, "bathroom": 1401}
"""Numbers of generated scenes; official ones are below 500."""


@dataclass(frozen=True)
class Room:
    """What is where."""

    kind: str
    receptacles: Sequence[str]
    """Their types; each is at a location of its own."""
    objects: Sequence[tuple[str, int]]
    """Type, and the number of the receptacle it is in."""


@dataclass(frozen=True)
class Household:
    """A task in a room."""

    task: str
    room: Room
    target: str
    destination: str
    lamp: str
    template: int
    """Which of the task's two sentences it is told with."""

    @property
    def params(self) -> dict[str, Any]:
        """As ``traj_data.json`` names them."""
        return {
            "object_target": self.target,
            "parent_target": self.destination,
            "toggle_target": self.lamp,
            "mrecep_target": "",
            "object_sliced": False,
        }

    @property
    def name(self) -> str:
        """As the folders of official games are named."""
        return f"{self.task}-{self.target}-None-{self.destination or self.lamp}-{SCENE[self.room.kind]}"


def drawn(task: str, rng: random.Random) -> Household:
    """A room and a task in it that makes sense; not always one that can be done."""
    while True:
        kind = rng.choice(WHERE[task])
        room = _room(kind, task, rng)
        verb = task.split("_")[1]
        targets = _targets(room, verb)
        if task == "look_at_obj_in_light":
            if targets:
                return Household(task, room, rng.choice(targets), "", LAMPS[kind], rng.randrange(2))
            continue
        choices = [(target, into) for target in targets for into in _destinations(room, target, verb)]
        if choices:
            target, into = rng.choice(choices)
            if verb == "two":
                room = _with_two(room, target, rng)
            return Household(task, room, target, into, "", rng.randrange(2))


def _room(kind: str, task: str, rng: random.Random) -> Room:
    """Receptacles, and objects each in one that may hold it."""
    fits = _constants().VAL_RECEPTACLE_OBJECTS
    receptacles = [name for name, (least, most) in ROOMS[kind].items() for _ in range(rng.randint(least, most))]
    fitting = {name for receptacle in receptacles for name in fits[receptacle]} & set(_constants().OBJECTS_SET)
    possible = sorted(fitting - (set(fits) - CARRIED) - set(LAMPS.values()))
    objects = []
    for _ in range(OBJECTS):
        name = rng.choice(possible)
        objects.append((name, rng.choice([i for i, r in enumerate(receptacles) if name in fits[r]])))
    if task == "look_at_obj_in_light":
        objects.append((LAMPS[kind], rng.choice([i for i, r in enumerate(receptacles) if r in UNDER_LAMPS])))
    return Room(kind, receptacles, objects)


def _targets(room: Room, verb: str) -> list[str]:
    present = {name for name, _ in room.objects} - set(LAMPS.values())
    return sorted(present & set(_constants().VAL_ACTION_OBJECTS[NEEDS[verb]]) if verb in NEEDS else present)


def _destinations(room: Room, target: str, verb: str) -> list[str]:
    """Where it may be put and none of its type is yet, or the task might be done at the start."""
    fits = _constants().VAL_RECEPTACLE_OBJECTS
    taken = {room.receptacles[i] for name, i in room.objects if name == target}
    good = {r for r in room.receptacles if target in fits[r]} - taken - {"Microwave"} - NOT_INTO.get(verb, set())
    return sorted(good)


def _with_two(room: Room, target: str, rng: random.Random) -> Room:
    """At least two of the target, the second one where a first one is: the destination holds none."""
    places = [i for name, i in room.objects if name == target]
    extra = [] if len(places) > 1 else [(target, rng.choice(places))]
    return Room(room.kind, room.receptacles, [*room.objects, *extra])


def _constants() -> Any:
    return importlib.import_module("alfworld.gen.constants")
