"""The official ALFWorld games, where they are at hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lit_agents.environment.alfworld.archive import human_goals, read_index
from lit_agents.environment.alfworld.env import AlfWorld
from lit_agents.environment.alfworld.subgoals import goal_in
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.environment.split_overlap import TaskSet, identities, overlaps
from lit_agents.errors import BadInput
from lit_agents.types import Task
from tests.shared_data import HOUSEHOLDS, shared_data

pytest.importorskip("alfworld", reason="the extra [alfworld] is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning"),
    pytest.mark.xdist_group("official"),  # which unpacks them once
]

SHA256 = "111cd581b2250c8469e5ce0e4b25344ef94093a51f1d567adfed456742c965e4"
PUBLISHED = {
    "train": {"pick": 790, "look": 308, "clean": 650, "heat": 459, "cool": 533, "two": 813},
    "valid_train": {"pick": 46, "look": 19, "clean": 37, "heat": 25, "cool": 28, "two": 45},
    "valid_seen": {"pick": 35, "look": 13, "clean": 27, "heat": 16, "cool": 25, "two": 24},
    "valid_unseen": {"pick": 24, "look": 18, "clean": 31, "heat": 23, "cool": 21, "two": 17},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All games, unpacked by the command's own way."""
    archive = shared_data(HOUSEHOLDS)
    made = tmp_path_factory.mktemp("official")
    said = AlfWorld(str(made), [str(archive)], SHA256).install()
    assert (
        "3553 of train, 140 of valid_seen, 200 of valid_train, 134 of valid_unseen" in said and "left out" not in said
    )
    return made


def stored(task: Task) -> list[str]:
    commands: list[str] = json.loads(Path(task.path).read_text())["walkthrough"]
    return commands


def test_splits_and_types_are_those_that_were_published(folder: Path):
    rows = read_index(folder / "official")
    assert {split: dict(Counter(r.kind for r in rows if r.split == split)) for split in PUBLISHED} == PUBLISHED
    unseen = {r.scene for r in rows if r.split == "valid_unseen"}
    assert len(unseen) == 4 and not unseen & {r.scene for r in rows if r.split == "train"}
    assert sum(len(human_goals(folder / "official" / r.split / r.name / "game.tw-pddl")) for r in rows[::40]) > 2 * len(
        rows[::40]
    )


def test_our_splits_are_fixed_and_disjoint(folder: Path):
    world = AlfWorld(str(folder))
    train, sft = world.tasks("official-all", "train", 2000), world.tasks("official-all", "sft", 1500)
    assert not {t.id for t in train} & {t.id for t in sft} and train[:10] == world.tasks("official-all", "train", 10)
    assert {t.labels["source"] for t in world.tasks("official-all", "validation", 200)} == {"valid_train"}
    sets = [TaskSet("train", train), TaskSet("sft", sft)]
    sets += [TaskSet(split, world.tasks("official-all", split, n)) for split, n in (("validation", 200), ("test", 134))]
    assert (
        overlaps(sets, identities(sets, lambda tasks: [None] * len(tasks))) == []
    )  # by content; none needs an episode
    both = world.tasks("official-heat+cool", "train", 459 + 533)
    assert Counter(t.labels["type"] for t in both[:200]) == {"heat": 100, "cool": 100}  # in turns while there are both
    assert Counter(t.labels["type"] for t in both) == {"heat": 459, "cool": 533}
    shown = world.tasks("official-heat+cool", "sft", 400)
    assert not {t.id for t in shown} & {t.id for t in both[:500]}
    for source, name, count in (("official", "valid_unseen", 134), ("seen", "valid_seen", 140)):
        tasks = world.tasks(f"{source}-all", "test", count)
        assert {t.labels["source"] for t in tasks} == {name} and len({t.id for t in tasks}) == count
        assert [t.id for t in world.tasks(f"{source}-all", "train", 50)] == [t.id for t in train[:50]]
        with pytest.raises(BadInput, match=f"has {count} games for test"):
            world.tasks(f"{source}-all", "test", count + 1)  # and never tops up with generated ones


def test_a_mixture_is_the_official_games_first_and_then_generated_ones(folder: Path):
    tasks = AlfWorld(str(folder), workers=2).tasks("mixed-pick", "train", 792)
    assert [t.labels["source"] for t in tasks] == ["train"] * 792 and len({t.sha256 for t in tasks}) == 792
    assert ["/official/" in t.path for t in tasks] == [True] * 790 + [False] * 2


def test_a_pool_plays_64_games_16_at_a_time_and_leaves_nothing_behind(folder: Path, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("LIT_AGENTS_CACHE", str(tmp_path))
    waiting = AlfWorld(str(folder)).tasks("official-all", "test", 64)
    live, won, processes = dict[int, list[str]](), 0, set[int]()
    with EnvPool(AlfWorld(str(folder)), 16) as pool:
        while waiting or live:
            new = {s: waiting.pop() for s in [s for s in range(16) if s not in live][: len(waiting)]}
            for s, start in pool.reset(new).items():
                assert not isinstance(start, Failure), start
                live[s] = stored(new[s])
            processes |= {session.pid for session in pool._sessions.values()}
            for s, step in pool.step({s: commands.pop(0) for s, commands in live.items()}).items():
                assert not isinstance(step, Failure), step
                if step.terminated:
                    won += step.won
                    del live[s]
    assert won == 64 and len(processes) == 16
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]


@pytest.mark.timeout(1200)
def test_the_stored_walkthrough_wins_every_validation_game_and_every_condition_of_its_goal(folder: Path):
    won = 0
    world = AlfWorld(str(folder), score="goal")
    for source, count in (("official", 134), ("seen", 140)):
        for task in world.tasks(f"{source}-all", "test", count):
            goal = goal_in(json.loads(Path(task.path).read_text())["pddl_problem"], task.path)
            assert bool(goal.lamp) == (task.labels["type"] == "look") and (goal.count == 2) == (
                task.labels["type"] == "two"
            )
            world.reset(task)
            scores = [(last := world.step(command)).score for command in stored(task)]
            won += last.won
            assert scores == sorted(scores) and scores[-1] == 1.0 and len(set(scores)) >= 2
    assert won == 274
