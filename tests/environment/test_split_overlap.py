"""Splits are compared by content: what is the same task, whatever it is called, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lit_agents.environment import split_overlap as splits
from lit_agents.environment.base import TextEnvironment
from lit_agents.environment.checker import check_env
from lit_agents.environment.split_overlap import SPLITS, TaskSet, exactly, identities, overlaps
from lit_agents.environment.toy import CorridorWorld, EchoWorld
from lit_agents.errors import BadInput
from lit_agents.tasks import main
from lit_agents.types import Task
from tests.environment import split_worlds

BAD = {
    "IgnoresSplit": "splits train and sft share 2 tasks, e.g. 0 of train is 0 of sft (the same content)",
    "Renames": "splits train and sft share 2 tasks, e.g. train-0 of train is sft-0 of sft (the same content)",
    "SameFiles": "splits train and sft share 2 tasks, e.g. train-0 of train is sft-0 of sft (the same content)",
}


def made(name: str, folder: Path) -> TextEnvironment:
    kind = getattr(split_worlds, name)
    world = kind(str(folder)) if name in ("SameFiles", "Rows") else kind()
    assert isinstance(world, TextEnvironment)
    return world


def found_in(world: TextEnvironment, count: int = 3) -> list[str]:
    """What is wrong with the splits of a world."""
    spec = "r2-w2" if isinstance(world, EchoWorld) else "n5"
    sets = [TaskSet(split, world.tasks(spec, split, count)) for split in SPLITS]

    def ask(tasks: Sequence[Task]) -> list[str | None]:
        return [world.reset(task).observation for task in tasks]

    return [found.sentence for found in overlaps(sets, identities(sets, ask))]


@pytest.mark.parametrize("name", list(BAD))
def test_the_same_tasks_in_two_splits_are_found_by_their_content(name: str, tmp_path: Path) -> None:
    assert len(found_in(made(name, tmp_path))) == 6  # of four splits each with each
    assert any(
        BAD[name] in fault for fault in check_env(made(name, tmp_path), made(name, tmp_path).tasks("n5", "train", 1)[0])
    )


@pytest.mark.parametrize("world", [EchoWorld(), CorridorWorld(), split_worlds.Numbers()])
def test_worlds_that_keep_their_splits_apart_pass(world: TextEnvironment) -> None:
    assert found_in(world) == []


def test_rows_of_one_file_are_told_apart_by_what_they_show(tmp_path: Path) -> None:
    """They share the file's hash, and the first of each split its number."""
    assert found_in(made("Rows", tmp_path)) == []
    assert check_env(made("Rows", tmp_path), made("Rows", tmp_path).tasks("n5", "train", 1)[0]) == [
        "the fingerprint does not say commands", "the fingerprint does not say admissible",
    ]  # fmt: skip


def test_a_task_that_is_in_a_split_twice_is_found() -> None:
    assert (
        found_in(split_worlds.Repeats())[0] == "split train has 1 task more than once, e.g. 0 and 0 (the same content)."
    )


def test_tasks_with_a_hash_of_their_own_are_compared_without_an_episode() -> None:
    sets = [TaskSet(split, EchoWorld().tasks("r2-w2", split, 8)) for split in SPLITS]
    asked: list[Task] = []
    assert overlaps(sets, identities(sets, lambda tasks: [asked.append(task) for task in tasks])) == [] == asked


def test_no_more_episodes_are_begun_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "MOST_BEGUN", 2)
    world, asked = split_worlds.Numbers(), list[Task]()

    def ask(tasks: Sequence[Task]) -> list[str | None]:
        asked.extend(tasks)
        return [None] * len(tasks)  # and an episode that cannot be begun says nothing

    sets = [TaskSet(split, world.tasks("n", split, 5)) for split in SPLITS]
    assert overlaps(sets, identities(sets, ask)) == []
    assert [(task.split, task.id) for task in asked] == [(split, number) for split in SPLITS for number in "01"]


def test_two_places_of_one_split_may_share_tasks() -> None:
    tasks = EchoWorld().tasks("r2-w2", "test", 2)
    sets = [TaskSet("test", tasks), TaskSet("test", tasks)]
    assert overlaps(sets, identities(sets, lambda asked: [])) == []


def test_fewer_tasks_than_asked_for_is_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(BadInput, match="count: n has 3 tasks for test, not 4") as refusal:
        exactly(split_worlds.Few(), "n", "test", 4)
    assert refusal.value.where == "count"
    assert len(exactly(split_worlds.Few(), "n", "test", 3)) == 3


@pytest.mark.parametrize(
    ("name", "count", "said"),
    [
        ("IgnoresSplit", 2, "--count: splits train and sft share 2 tasks"),
        ("Renames", 2, "--count: splits train and sft share 2 tasks"),
        ("Repeats", 3, "Repeats: split train has 1 task more than once"),
        ("Few", 5, "count: n has 3 tasks for train, not 5"),
    ],
)
def test_the_tasks_command_refuses_them(name: str, count: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"tests.environment.split_worlds.{name}"
    assert main([path, "--spec", "n", "--count", str(count), "--played", "0"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_tasks_command_says_what_it_compared_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tests.environment.split_worlds.Numbers", "--spec", "n", "--split", "test", "--count", "9"]) == 0
    assert "none is among the first 4 of train, 4 of sft, 4 of validation" in capsys.readouterr().out
