"""ALFWorld on games made here: played as the package's own environment plays them, only faster."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lit_agents.environment.alfworld import pddl_cache as alfworld_translation
from lit_agents.environment.alfworld.archive import GAME, TRAJECTORY, TYPES
from lit_agents.environment.alfworld.env import AlfWorld
from lit_agents.environment.alfworld.game import Game
from lit_agents.environment.alfworld.generate.generator import generate
from lit_agents.environment.alfworld.subgoals import Goal, goal_in
from lit_agents.environment.checker import check_env
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.errors import BadInput
from lit_agents.types import StopReason, Task

pytest.importorskip("alfworld", reason="the extra [alfworld] is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the games of these tests are made."""
    return tmp_path_factory.mktemp("alfworld")


@pytest.fixture(autouse=True)
def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_AGENTS_CACHE", str(folder / "cache"))


@pytest.fixture
def tasks(folder: Path) -> list[Task]:
    """A game of each type."""
    return AlfWorld(str(folder), workers=2).tasks("generated-all", "train", 6)


def reference(path: str) -> Any:
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs.pddl import PddlEnv

    env = AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True, facts=True)), shuffle=False)
    env.load(json.loads(Path(path).read_text()))
    return env


def out_of_reach(problem: str) -> str:
    """The same problem, with a goal of a kind of thing that is not there."""
    before, _, goal = problem.partition("(:goal")
    return before + "(:goal" + re.sub(r"[A-Z]\w*Type", "MoonType", goal)


def test_every_type_is_generated_labelled_and_won_by_its_walkthrough(folder: Path, tasks: list[Task]):
    world = AlfWorld(str(folder))
    assert {task.labels["type"] for task in tasks} == set(TYPES.values())
    for task in tasks:
        commands = json.loads(Path(task.path).read_text())["walkthrough"]
        assert task.labels["plan_length"] == str(len(commands)) and task.rewards == 1
        start = world.reset(task)
        *before, end = [world.step(command) for command in commands]
        assert end.terminated and end.won and end.score == start.max_score == 1.0
        assert all(t.valid for t in [*before, end]) and not any(t.terminated or t.won or t.score for t in before)
        with pytest.raises(RuntimeError, match="over"):
            world.step("look")


def test_the_world_is_the_packages_own(tasks: list[Task]):
    """Texts, possible commands, facts and wins after six commands, some of them impossible, and after the walkthrough."""
    rng = random.Random(0)
    for task in tasks:
        theirs, ours = reference(task.path), Game(Path(task.path))
        for chosen in ([None] * 6, json.loads(Path(task.path).read_text())["walkthrough"]):
            state = theirs.reset()
            assert ours.start() == state.feedback
            for command in chosen:
                assert ours.commands == state.admissible_commands
                assert {str(f) for f in ours.facts()} == {str(f) for f in state.facts}
                command = command or rng.choice(["Look", "put it down", "go to moon 1", *state.admissible_commands])
                possible = command in state.admissible_commands
                state, _, _ = theirs.step(command)
                assert ours.step(command) == (state.feedback, possible) and ours.won == state.won
        assert ours.won


def test_the_planner_wins_from_wherever_one_is(tasks: list[Task], folder: Path):
    rng, world = random.Random(1), AlfWorld(str(folder))
    for task in tasks:
        world.reset(task)
        for _ in range(6):
            if world.step(rng.choice(world.admissible_actions())).terminated:
                world.reset(task)
        for _ in range(30):
            action = world.expert_action()
            assert action in world.admissible_actions()
            if (last := world.step(action)).terminated:
                break
        assert last.won and world.expert_action() is None


@pytest.mark.parametrize(("score", "expert"), [("win", "planner"), ("goal", "handcoded")])
def test_it_keeps_the_contract(folder: Path, score, expert):
    world = AlfWorld(str(folder), score=score, expert=expert, workers=2)
    for task in world.tasks("generated-pick+heat+two+look", "train", 4):
        assert check_env(world, task) == []


def test_the_same_seed_makes_the_same_game_in_another_process(folder: Path, tmp_path: Path, tasks: list[Task]):
    code = (
        "import sys; from pathlib import Path; from lit_agents.environment.alfworld.generate.generator import generate; "
        "generate('pick_heat_then_place_in_recep', 30001, Path(sys.argv[1]))"
    )
    env = os.environ | {"PYTHONHASHSEED": "7", "LIT_AGENTS_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "games")], check=True, env=env)
    (again,) = (tmp_path / "games").glob(f"*/*/{GAME}")
    (task,) = [task for task in tasks if task.labels["type"] == "heat"]
    assert again.read_bytes() == Path(task.path).read_bytes()


def test_splits_share_no_game_and_the_first_ones_stay_the_first(folder: Path, tasks: list[Task]):
    world = AlfWorld(str(folder), workers=2)
    assert world.tasks("generated-all", "train", 3) == tasks[:3]
    splits = {
        split: {t.sha256 for t in world.tasks("generated-look", split, 1)} for split in ("sft", "validation", "test")
    }
    assert len(set().union(*splits.values(), {t.sha256 for t in tasks})) == 3 + 6
    (only,) = world.tasks("generated-heat", "train", 1)
    assert replace(only, family="generated-all") in tasks


def test_conditions_of_the_goal_are_paid_once_and_a_win_is_worth_the_same(folder: Path, tasks: list[Task]):
    world, stages = AlfWorld(str(folder), score="goal"), {"pick": 2, "look": 3, "two": 4}
    for task in AlfWorld(str(folder), score="goal").tasks("generated-all", "train", 6):
        commands, scores = json.loads(Path(task.path).read_text())["walkthrough"], [0.0]
        start = world.reset(task)
        for command in commands:
            scores.append(world.step(command).score)
        assert scores[-1] == start.max_score == 1.0 and all(after >= before for before, after in pairwise(scores))
        rises = sum(after > before for before, after in pairwise(scores))
        assert rises == stages.get(task.labels["type"], 3) or (task.labels["type"], rises) == (
            "look",
            2,
        )  # on means there
        assert task.rewards == 2  # at least, so that a dense reward takes it


@pytest.mark.parametrize("kind", ["pick", "heat", "two"])
def test_undoing_and_redoing_pays_nothing(folder: Path, kind: str):
    world = AlfWorld(str(folder), score="goal")
    (task,) = world.tasks(f"generated-{kind}", "train", 1)
    commands = json.loads(Path(task.path).read_text())["walkthrough"]
    world.reset(task)
    taken = next(i for i, c in enumerate(commands) if c.startswith("take"))
    best = [world.step(command).score for command in commands[: taken + 1]][-1]
    assert best > 0
    thing, _, place = commands[taken].removeprefix("take ").partition(" from ")
    for _ in range(3):
        assert world.step(f"move {thing} to {place}").score == best and world.step(commands[taken]).score == best
    assert world.step("no such thing").score == best
    assert [world.step(command).score for command in commands[taken + 1 :]][-1] == 1.0


def test_what_holds_is_counted_for_the_best_things():
    goal = goal_in(
        "(:goal (and (exists (?r - receptacle) (exists (?o - object) (and (heatable ?o) (objectType ?o EggType) "
        "(receptacleType ?r ShelfType) (isHot ?o) (inReceptacle ?o ?r))))))",
        "a game",
    )
    assert goal == Goal("eggtype", "shelftype", "", "ishot", 1) and goal.steps == 3
    kinds = [
        "objecttype egg1 eggtype",
        "objecttype egg2 eggtype",
        "objecttype pan panttype",
        "receptacletype s shelftype",
    ]

    def done(*more: str) -> int:
        return goal.done([fact(*text.split()) for text in [*kinds, *more]])

    assert done() == done("holds a pan", "ishot pan") == 0
    assert done("holds a egg1") == done("inreceptacle egg1 s") == 1  # cold in its place is no more than in hand
    assert done("holds a egg1", "ishot egg2") == 2 and done("holds a egg1", "ishot egg1") == 2
    assert done("ishot egg2", "inreceptacle egg2 s") == 3
    with pytest.raises(BadInput, match="not one of ALFWorld's six"):
        goal_in("(:goal (and (objectType ?a PenType) (objectType ?b CupType)))", "a game")


def fact(name: str, *arguments: str) -> Any:
    return SimpleNamespace(name=name, arguments=[SimpleNamespace(name=a) for a in arguments])


def test_the_handcoded_expert_hears_that_it_has_put_down_what_it_held(folder: Path, tasks: list[Task], monkeypatch):
    from alfworld.agents.expert import HandCodedTWAgent

    heard, act = list[str](), HandCodedTWAgent.act
    monkeypatch.setattr(HandCodedTWAgent, "act", lambda self, *state: (heard.append(state[-1]), act(self, *state))[1])
    world = AlfWorld(str(folder), expert="handcoded")
    world.reset(next(task for task in tasks if task.labels["type"] == "two"))
    assert world.expert_action()
    assert any(last.startswith("put ") for last in heard) and not any(last.startswith("move ") for last in heard)


def test_the_handcoded_expert_wins_without_knowing_where_things_are(folder: Path, tasks: list[Task]):
    world = AlfWorld(str(folder), expert="handcoded")
    for task in tasks:
        random.seed(1)  # its own random numbers belong to the game, and leave the process's alone
        numbers, shown = random.getstate(), []
        for detour in (None, None, "inventory", "help"):
            world.reset(task)
            if detour == "help":  # before it is asked at all
                world = AlfWorld(str(folder), expert="handcoded")
                world.reset(task)
                world.step(detour)
            played: list[str] = []
            while len(played) < 200:
                if detour == "inventory" and len(played) == 3:
                    world.step(detour)  # the planner takes over
                action = world.expert_action()
                assert action in world.admissible_actions()
                played.append(action)
                if (last := world.step(action)).terminated:
                    break
            assert last.won
            shown.append(played)
        assert shown[0] == shown[1] and len(shown[2]) <= len(shown[0])
        assert "look" not in shown[0] and len(shown[0]) <= 50 and random.getstate() == numbers
    path = folder / "alone" / GAME
    path.parent.mkdir()
    path.write_bytes(Path(tasks[0].path).read_bytes())
    world.reset(replace(tasks[0], path=str(path)))
    with pytest.raises(BadInput, match=r"no traj_data\.json beside it"):
        world.expert_action()


def test_memory_does_not_grow_with_the_games_that_were_played(tasks: list[Task]):
    import mementos.core

    def remembered() -> int:
        for task in tasks:
            Game(Path(task.path)).start()
        return len(mementos.core._memento_cache)

    assert remembered() == remembered() > 100


def test_the_goal_may_be_a_persons_and_the_possible_commands_may_be_shown(
    folder: Path, tmp_path: Path, tasks: list[Task]
):
    task = tasks[0]
    shown = AlfWorld(str(folder), admissible="shown")
    first = shown.reset(task).observation
    assert all(command in first for command in shown.admissible_actions() if command != "help")
    assert (
        "Possible:" in shown.step("look").observation
        and "Possible:" not in AlfWorld(str(folder)).reset(task).observation
    )
    path = tmp_path / Path(task.path).parent.name / GAME
    path.parent.mkdir()
    path.write_bytes(Path(task.path).read_bytes())
    human = AlfWorld(goal="human")
    with pytest.raises(BadInput, match="no person wrote a goal"):
        human.reset(replace(task, path=str(path), sha256=""))
    sentences = ["Put the thing  away.", "Tidy up"]
    annotations = {"anns": [{"task_desc": sentence} for sentence in sentences]}
    path.with_name(TRAJECTORY).write_text(json.dumps({"turk_annotations": annotations}))
    seen = {
        human.reset(replace(task, path=str(path), sha256="")).observation.partition("Task: ")[2].partition("\n")[0]
        for _ in range(3)
    }
    assert len(seen) == 1 and seen < {"Put the thing away", "Tidy up"}
    hashes = []
    for sentence in ("Put it there", "Put it elsewhere"):
        path.with_name(TRAJECTORY).write_text(json.dumps({"turk_annotations": {"anns": [{"task_desc": sentence}]}}))
        hashes.append(human._hash(task.sha256, path))
    assert len({*hashes, task.sha256}) == 3
    with pytest.raises(BadInput, match="not as it was when it was indexed"):
        AlfWorld(goal="human").reset(replace(task, path=str(path), sha256=hashes[0]))
    AlfWorld(goal="human").reset(replace(task, path=str(path), sha256=hashes[1]))
    prints = [
        AlfWorld(**how).fingerprint() for how in ({}, {"goal": "human"}, {"admissible": "shown"}, {"score": "goal"})
    ]
    assert len({tuple(sorted(p.items())) for p in prints}) == 4


def test_what_is_not_possible_is_said_and_counted_as_invalid(folder: Path, tasks: list[Task]):
    world = AlfWorld(str(folder))
    world.reset(tasks[0])
    for action in ("Look", "put cup 1 in/on desk 1", "", "\n", "go to the moon", "look\nfly away"):
        said = world.step(action)
        assert not said.valid and said.observation == "Nothing happens.\nCommand:"
    assert world.step("I think I should look around.\n  look . ").valid is False
    assert world.step("I think I should look around.\n  look. ").valid


@pytest.mark.parametrize("damage", [lambda kept: kept[:100], lambda kept: kept[:40] + bytes(60) + kept[100:]])
def test_a_translation_on_disk_that_is_damaged_is_made_again(folder: Path, tasks: list[Task], monkeypatch, damage):
    alfworld_translation._translation.cache_clear()
    expected = Game(Path(tasks[0].path)).start()
    for path in (folder / "cache" / "alfworld" / "translations").glob("*/*.gz"):
        path.write_bytes(damage(path.read_bytes()))
    alfworld_translation._translation.cache_clear()
    assert Game(Path(tasks[0].path)).start() == expected
    alfworld_translation._translation.cache_clear()
    monkeypatch.setattr(alfworld_translation, "_made", lambda *args: pytest.fail("it was not kept"))
    assert Game(Path(tasks[0].path)).start() == expected


def test_what_is_kept_of_a_game_is_not_changed_by_playing_it(folder: Path, tasks: list[Task]):
    for task in tasks:
        world = AlfWorld(str(folder), score="goal", expert="handcoded")
        world.reset(task)
        assert world._game is not None
        kept = world._game._translation
        before = json.dumps(asdict(kept))
        while (action := world.expert_action()) is not None and not world.step(action).terminated:
            world.admissible_actions()
        assert len(world._game.played) > 2 and json.dumps(asdict(kept)) == before
        assert Game(Path(task.path))._translation is kept  # the same one for all that play it in a process


def test_a_disk_that_cannot_be_written_is_no_fault_of_the_game(
    folder: Path, tasks: list[Task], tmp_path: Path, monkeypatch
):
    alfworld_translation._translation.cache_clear()
    expected = Game(Path(tasks[0].path)).start()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIT_AGENTS_CACHE", str(tmp_path / "file"))
    alfworld_translation._translation.cache_clear()
    assert Game(Path(tasks[0].path)).start() == expected


def test_games_that_cannot_be_played_are_failures_of_their_episode(folder: Path, tmp_path: Path, tasks: list[Task]):
    content = json.loads(Path(tasks[0].path).read_text())
    old = content["grammar"].replace('template :: "move {o} to {r}"', 'template :: "put {o} in/on {r}"')
    damaged = {
        "old format": json.dumps(content | {"grammar": old}),
        "cannot be won": json.dumps(content | {"solvable": False}),
        "lacks pddl_problem": json.dumps({k: v for k, v in content.items() if k != "pddl_problem"}),
        "cannot be read": json.dumps(content)[:1000],
        "its planning problem cannot be read": json.dumps(content | {"pddl_problem": content["pddl_problem"][:2000]}),
        "nothing can reach its goal": json.dumps(content | {"pddl_problem": out_of_reach(content["pddl_problem"])}),
        "something else where its texts": json.dumps(content | {"walkthrough": 3}),
    }
    broken = []
    for number, text in enumerate(damaged.values()):
        path = tmp_path / str(number) / GAME
        path.parent.mkdir()
        path.write_text(text)
        broken.append(replace(tasks[0], path=str(path), sha256=""))
    last = len(broken)
    with EnvPool(AlfWorld(str(folder)), last + 1) as pool:
        answers = pool.reset(dict(enumerate([*broken, tasks[0]])))
        for number, words in enumerate(damaged):
            answer = answers[number]
            assert isinstance(answer, Failure) and answer.stop is StopReason.ENVIRONMENT_CRASH and words in answer.error
        assert not isinstance(answers[last], Failure) and not isinstance(pool.step({last: "look"})[last], Failure)


def test_a_stored_command_that_is_not_possible_is_not_said_for_ever(folder: Path, tmp_path: Path, tasks: list[Task]):
    content = json.loads(Path(tasks[0].path).read_text())
    content["walkthrough"].insert(1, "go to moon 1")
    (tmp_path / GAME).write_text(json.dumps(content))
    world = AlfWorld(str(folder))
    world.reset(replace(tasks[0], path=str(tmp_path / GAME), sha256=""))
    while (action := world.expert_action()) is not None:
        assert action in world.admissible_actions()
        last = world.step(action)
    assert last.won


def test_where_the_handcoded_expert_gives_up_the_planner_goes_on(folder: Path, tasks: list[Task], monkeypatch):
    monkeypatch.setattr("lit_agents.environment.alfworld.env.handcoded_walkthrough", lambda game: game.start() and [])
    world = AlfWorld(str(folder), expert="handcoded")
    world.reset(tasks[0])
    while (action := world.expert_action()) is not None:
        last = world.step(action)
    assert last.won


def test_one_game_at_a_time_in_a_process(folder: Path, tasks: list[Task]):
    one, other = AlfWorld(str(folder)), AlfWorld(str(folder))
    one.reset(tasks[0])
    action = one.admissible_actions()[0]
    other.reset(tasks[1])
    with pytest.raises(RuntimeError, match="another game was begun in this process"):
        one.step(action)
    one.reset(tasks[0])
    assert one.step(action).valid


@pytest.mark.parametrize(
    ("spec", "split", "count", "named"),
    [
        ("all", "train", 1, "spec"), ("generated-fry", "train", 1, "spec"), ("generated-look+look", "train", 1, "spec"),
        ("generated-all", "dev", 1, "split"), ("generated-look", "train", 10_001, "count"),
    ],
)  # fmt: skip
def test_what_is_asked_for_in_vain_is_named(folder: Path, spec: str, split: str, count: int, named: str):
    with pytest.raises(BadInput) as refusal:
        AlfWorld(str(folder)).tasks(spec, split, count)
    assert refusal.value.where == named


def test_without_official_games_it_says_where_to_get_them(tmp_path: Path):
    with pytest.raises(BadInput, match=r"lit_agents\.tasks alfworld --source"):
        AlfWorld(str(tmp_path)).tasks("official-all", "train", 1)
    with pytest.raises(BadInput, match="there are no ALFWorld games"):
        AlfWorld(str(tmp_path)).tasks("mixed-all", "train", 1)


def test_a_game_that_cannot_be_won_is_never_kept(tmp_path: Path, monkeypatch):
    from lit_agents.environment.alfworld.generate import generator as alfworld_generate

    drawn, bad = alfworld_generate.drawn, []

    def first_impossible(task, rng):
        household = drawn(task, rng)
        if not bad:
            bad.append(household)
            return replace(household, target="Television")  # nothing of it is there
        return household

    monkeypatch.setattr(alfworld_generate, "drawn", first_impossible)
    path = generate("pick_and_place_simple", 5, tmp_path)
    assert bad and list(tmp_path.glob(f"*/*/{GAME}")) == [path]
    assert len(json.loads(path.read_text())["walkthrough"]) > 1


def test_who_makes_games_ends_with_whom_it_makes_them_for(tmp_path: Path):
    order = ["lit_agents.environment.alfworld.generate.generator", "{parent}", str(tmp_path), "pick_and_place_simple:5"]
    for parent, made in ((os.getpid(), 1), (1, 0)):  # the second one's has ended before it began
        command = [sys.executable, "-m", *(word.format(parent=parent) for word in order)]
        subprocess.run(command, check=bool(made))
        assert len(list(tmp_path.glob(f"*/*/{GAME}"))) == made
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


def test_a_game_of_a_generation_that_was_killed_is_replaced(tmp_path: Path):
    path = generate("pick_and_place_simple", 5, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    path.with_name("more").write_text("")
    assert generate("pick_and_place_simple", 5, tmp_path) == path
    assert path.read_bytes() == whole and {p.name for p in path.parent.iterdir()} == {GAME, TRAJECTORY}
    assert not list(tmp_path.glob(".*"))
