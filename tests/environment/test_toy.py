"""The toy worlds: what wins, what loses, what it scores."""

from __future__ import annotations

import pytest

from lit_agents.environment.toy import CorridorWorld, EchoWorld
from lit_agents.errors import BadInput


def test_echo_is_won_by_saying_each_word() -> None:
    world = EchoWorld()
    (task,) = world.tasks("r3-w4", "train", 1)
    start = world.reset(task)
    observation, steps = start.observation, []
    for _ in range(3):
        steps.append(world.step(observation.removeprefix("Say ").rstrip(".")))
        observation = steps[-1].observation
    assert [step.score for step in steps] == [1.0, 2.0, 3.0]
    assert [(step.terminated, step.won) for step in steps] == [(False, False), (False, False), (True, True)]
    assert start.max_score == 3.0 and task.rewards == 3


def test_echo_is_lost_by_one_wrong_word() -> None:
    world = EchoWorld()
    world.reset(world.tasks("r2-w3", "train", 1)[0])
    wrong = world.step("red herring")
    end = world.step(world.expert_action())
    assert not wrong.valid and not wrong.terminated
    assert (end.score, end.terminated, end.lost, end.won) == (1.0, True, True, False)


def test_corridor_needs_the_first_message() -> None:
    world = CorridorWorld()
    seen = set()
    for task in world.tasks("n7", "train", 30):
        start = world.reset(task)
        door = start.observation.removeprefix("Door: ").rstrip(".")
        scores, later = [], []
        while not (step := world.step(door)).terminated:
            scores.append(step.score)
            later.append(step.observation)
        assert step.won and scores == [float(k) for k in range(1, task.rewards)] and step.score == task.rewards
        assert set(later) <= {"Hall."}
        seen.add((door, task.rewards))
    assert {door for door, _ in seen} == {"left", "right"} and len(seen) > 5


def test_corridor_is_lost_at_the_wrong_end_and_score_never_falls() -> None:
    world = CorridorWorld()
    (task,) = world.tasks("n5", "test", 1)
    away = {"left": "right", "right": "left"}[world.reset(task).observation.removeprefix("Door: ").rstrip(".")]
    assert not world.step("jump").valid
    while not (step := world.step(away)).terminated:
        assert step.valid and step.score == 0.0
    assert step.lost and not step.won and step.observation == "You fell."
    with pytest.raises(RuntimeError):
        world.step(away)


@pytest.mark.parametrize(
    ("world", "spec", "split", "count"),
    [(EchoWorld(), "n5", "train", 1), (EchoWorld(), "r1-w7", "train", 1), (CorridorWorld(), "n2", "train", 1),
     (CorridorWorld(), "n5", "exam", 1), (CorridorWorld(), "n5", "train", 100_001)],
)  # fmt: skip
def test_what_there_is_not_is_refused(world: EchoWorld | CorridorWorld, spec: str, split: str, count: int) -> None:
    with pytest.raises(BadInput):
        world.tasks(spec, split, count)
