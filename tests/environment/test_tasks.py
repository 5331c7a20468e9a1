"""python -m lit_agents.tasks: what it prints, and how it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from lit_agents.environment.swe import SweGym
from lit_agents.environment.task_sets import environment_class, wins
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.environment.toy import CorridorWorld
from lit_agents.errors import BadInput
from lit_agents.tasks import main


def test_a_module_or_a_class_path_names_an_environment() -> None:
    assert environment_class("textworld") is TextWorld
    assert environment_class("lit_agents.environment.toy.CorridorWorld") is CorridorWorld


def test_the_set_is_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["lit_agents.environment.toy.CorridorWorld", "--spec", "n5", "--count", "12"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "12 tasks of n5, split train" in first and "the expert won 10 of 10 played" in first
    assert main(arguments) == 0 and capsys.readouterr().out == first
    assert main([*arguments, "--played", "12", "--turns", "1"]) == 0
    world = CorridorWorld()
    tasks = world.tasks("n5", "train", 12)
    near = sum(task.rewards == 1 for task in tasks)  # cells to the door
    assert f"the expert won {near} of 12 played, each in at most 1 turns" in capsys.readouterr().out
    assert main([*arguments, "--played", "12", "--always", "left"]) == 0
    to_the_left = sum(world.reset(task).observation == "Door: left." for task in tasks)
    assert f"always saying 'left' won {to_the_left} of 12 played" in capsys.readouterr().out
    assert 0 < near < 12 and 0 < to_the_left < 12


def test_arguments_of_the_environment_are_flags(games_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("textworld")
    arguments = ["--spec", "w2-o3-q4", "--count", "1", "--folder", str(games_folder), "--workers", "2"]
    assert main(["textworld", *arguments]) == 0
    assert f"in {games_folder / 'w2-o3-q4' / 'train'}" in capsys.readouterr().out


class Door:
    """What a world may be given."""

    def __init__(self, width: int = 1) -> None:
        if width > 9:
            raise BadInput("width", f"{width} is above 9.", "Lower it.")
        self.width = width


class World(CorridorWorld):
    """Takes classes as arguments."""

    seen: ClassVar[list[object]] = []

    def __init__(self, door: Door | None = None, doors: list[Door] | None = None) -> None:
        super().__init__()
        self.seen[:] = [door, *(doors or [])]


def test_arguments_that_are_classes_are_made_as_fit_makes_them(capsys: pytest.CaptureFixture[str]) -> None:
    world, door = (f"{__name__}.{kind.__name__}" for kind in (World, Door))
    known = [world, "--spec", "n5", "--count", "1", "--played", "0"]
    assert main([*known, "--door", door, "--door.width", "3", "--doors+", door]) == 0
    first, second = World.seen
    assert isinstance(first, Door) and first.width == 3 and isinstance(second, Door) and second.width == 1
    given = f'{{"class_path": "{door}", "init_args": {{"width": 4}}}}'
    assert main([*known, "--door", given]) == 0
    assert isinstance(World.seen[0], Door) and World.seen[0].width == 4
    assert main(known) == 0 and World.seen == [None]
    assert main([*known, "--door", door, "--door.width", "12"]) == 2
    assert capsys.readouterr().err == "width: 12 is above 9. Lower it.\n"


def test_a_sandbox_and_a_writer_of_tests_are_named_by_their_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[SweGym] = []
    monkeypatch.setattr(SweGym, "install", lambda self: made.append(self) or "installed")
    sandbox = "lit_agents.sandbox.local.SubprocessSandbox"
    arguments = ["swe", "--folder", str(tmp_path), "--sandbox", sandbox, "--sandbox.allowance.cpus", "0.5"]
    writer = "lit_agents.environment.swe.generated_tests.RecordedCalls"
    assert main([*arguments, "--written_tests", writer, "--written_tests.most", "3"]) == 0
    assert capsys.readouterr().out == "installed\n"
    said = made[0].fingerprint()
    assert (said["sandbox"], said["written_tests"]) == ("SubprocessSandbox", "RecordedCalls")
    assert main(["swe", "--sandbox", sandbox, "--sandbox.allowance.cpus", "0"]) == 2
    assert "allowance.cpus" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy", "--spec", "n5", "--count", "1"], "should hold one environment and holds 2"),
        (["nowhere", "--spec", "n5", "--count", "1"], "it cannot be imported"),
        (["textworld", "--spec", "house", "--count", "1"], "'house' names no TextWorld games"),
    ],
)
def test_refusals_are_one_paragraph(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_an_expert_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = CorridorWorld()
    monkeypatch.setattr("lit_agents.environment.task_sets.EnvPool", NoExpertPool)
    assert wins(world, world.tasks("n5", "train", 2)) is None


class NoExpertPool:
    """Answers as a pool of worlds that have no expert."""

    def __init__(self, *_: object, **_limits: object) -> None: ...

    def __enter__(self) -> NoExpertPool:
        return self

    def __exit__(self, *_: object) -> None: ...

    def expect_hints(self) -> None: ...

    def reset(self, tasks: dict[int, object]) -> dict[int, object]:
        return {}

    def ask_expert(self, sessions: dict[int, object]) -> dict[int, None]:
        return dict.fromkeys(sessions)
