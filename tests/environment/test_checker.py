"""check_env: silent on good worlds, and names each kind of fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lit_agents.environment.base import TextEnvironment
from lit_agents.environment.checker import check_env
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.environment.toy import CorridorWorld, EchoWorld
from tests.environment import fake_worlds, split_worlds


@pytest.mark.parametrize(("world", "spec"), [(EchoWorld(), "r3-w4"), (EchoWorld(), "r1-w6"), (CorridorWorld(), "n7")])
def test_nothing_is_wrong_with_the_toy_worlds(world: TextEnvironment, spec: str) -> None:
    for task in world.tasks(spec, "train", 5):
        assert check_env(world, task) == []


def test_nothing_is_wrong_with_textworld(textworld: TextWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_agents.environment.checker.SPLITS", ("train", "test"))  # games of each have to be made
    assert check_env(textworld, textworld.tasks("w2-o3-q4", "train", 2)[0]) == []


@pytest.mark.parametrize(
    ("world", "fault"),
    [
        (fake_worlds.WrongStart(), "reset returned str, not a Start"),
        (fake_worlds.EmptyStart(), "the first observation is empty"),
        (fake_worlds.NotATransition(), "step returned tuple, not a Transition"),
        (fake_worlds.Changed(observation=b"Hall."), "an observation is bytes, not str"),
        (fake_worlds.Changed(observation="\ud800"), "lone surrogate"),
        (fake_worlds.Changed(score=float("inf")), "the score is inf, not a finite number"),
        (fake_worlds.Changed(score=None), "the score is None, not a finite number"),
        (fake_worlds.Changed(terminated=1), "terminated is 1, not a bool"),
        (fake_worlds.Changed(terminated=True, won=True, lost=True), "both won and lost"),
        (fake_worlds.Changed(terminated=False, won=True), "won but not terminated"),
        (fake_worlds.Changed(terminated=False, won=False, lost=True), "lost but not terminated"),
        (fake_worlds.Changed(signals={"score": 1.0}), "the signal name 'score' is taken"),
        (fake_worlds.Changed(signals={"heat": [1.0]}), "the signal 'heat' is [1.0]"),
        (fake_worlds.Changed(score=0.5), "a win scores 0.5, and max_score is"),
        (fake_worlds.RaisesOnJunk(), "step on '\\ud800"),
        (fake_worlds.Leaks(), "state leaks from one episode into the next"),
        (fake_worlds.Random(), "twin runs differ"),
        (fake_worlds.ClosesOnce(), "close raised ValueError: closed already"),
        (fake_worlds.Unpicklable(), "it cannot be pickled"),
        (fake_worlds.PoorExpert(), "the expert does not win"),
        (fake_worlds.ForgetfulExpert(), "the expert does not win after a detour"),
        (fake_worlds.ShiftingTasks(), "are not the same ones each time"),
        (fake_worlds.SharedTasks(), "splits train and sft share 2 tasks"),
        (fake_worlds.SharedTasks(), "says that its split is 'train'"),
        (split_worlds.Few(most=1), "tasks returns 1 of split train where 2 are asked for"),
    ],
)
def test_a_fault_is_named(world: TextEnvironment, fault: str) -> None:
    task = next(task for task in CorridorWorld().tasks("n9", "train", 20) if task.rewards == 3)
    assert any(fault in found for found in check_env(world, task)), check_env(world, task)


def test_a_wrong_number_of_rewards_is_named() -> None:
    task = CorridorWorld().tasks("n9", "train", 1)[0]
    faults = check_env(CorridorWorld(), replace(task, rewards=task.rewards + 1))
    assert any("score increments" in fault for fault in faults)


def test_a_split_that_there_is_not_is_no_fault() -> None:
    task = replace(CorridorWorld().tasks("n9", "train", 1)[0], split="demo")
    assert check_env(CorridorWorld(), task) == []
