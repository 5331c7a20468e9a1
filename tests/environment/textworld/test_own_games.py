"""A user's own games, TextWorld's challenges, and seeds of a user's choice: played to the win, and splits that share nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lit_agents.environment.checker import check_env
from lit_agents.environment.split_overlap import SPLITS
from lit_agents.environment.textworld.challenges import ChallengeGames, challenge
from lit_agents.environment.textworld.env import TextWorld, seed_ranges
from lit_agents.errors import BadInput
from lit_agents.fit import fit
from lit_agents.tasks import main
from lit_agents.types import Task
from tests.integration.conftest import ONE_ITERATION, TOY
from tests.tiny import tiny_model_folder

pytest.importorskip("textworld")


@pytest.fixture
def mine(textworld: TextWorld, tmp_path: Path) -> Path:
    """A folder with one game for each split, by name."""
    made = textworld.tasks("w2-o3-q4", "train", 4)
    for split, task in zip(SPLITS, made, strict=True):
        (tmp_path / "mine" / split).mkdir(parents=True)
        for suffix in (".z8", ".json"):
            shutil.copy(Path(task.path).with_suffix(suffix), tmp_path / "mine" / split / f"house{suffix}")
    return tmp_path / "mine"


def by_split(folder: Path) -> dict[str, str]:
    return {split: str(folder / split) for split in SPLITS}


def won(world: TextWorld, task: Task) -> bool:
    """By the expert."""
    world.reset(task)
    for _ in range(60):
        answer = world.step(world.expert_action() or "")
        if answer.terminated:
            return answer.won
    return False


def test_own_games_are_served_by_split_and_won(mine: Path, textworld: TextWorld) -> None:
    world = TextWorld(games=by_split(mine))
    tasks = {split: world.tasks("games", split, 1)[0] for split in SPLITS}
    assert len({task.sha256 for task in tasks.values()}) == 4
    for (split, task), original in zip(tasks.items(), textworld.tasks("w2-o3-q4", "train", 4), strict=True):
        assert task.path == str((mine / split / "house.z8").resolve()) and task.id == f"house-{task.sha256[:8]}"
        assert task.sha256 == original.sha256  # a story whose day of compilation is blank already
        assert (task.rewards, task.labels["quest_length"]) == (original.rewards, original.labels["quest_length"])
        assert won(world, task)
    world.close()


def test_nothing_is_wrong_with_own_games(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = TextWorld(games={"train": [str(mine / split) for split in ("train", "sft")], "test": str(mine / "test")})  # type: ignore[dict-item]
    assert check_env(world, world.tasks("games", "train", 2)[0]) == []


def test_a_list_of_games_is_dealt_out_by_their_content(mine: Path, tmp_path: Path) -> None:
    def dealt(named: str | list[str]) -> dict[str, str]:
        world, found = TextWorld(games=named), {}
        for split in SPLITS:
            for count in range(1, 5):
                try:
                    found |= {task.sha256: split for task in world.tasks("games", split, count)}
                except BadInput as error:
                    assert error.where == "count" and f"not {count}" in error.reason
                    break
        return found

    first = dealt(str(mine / "**" / "*.z8"))
    assert len(first) == 4 and first == dealt(str(mine))
    moved = tmp_path / "moved.z8"
    story = bytearray((mine / "sft" / "house.z8").read_bytes())
    story[18:24] = b"261130"  # compiled on another day
    moved.write_bytes(story)
    shutil.copy(mine / "sft" / "house.json", tmp_path / "moved.json")
    assert first.items() > dealt([str(moved)]).items()  # whatever other games there are


def test_own_games_that_cannot_be_used_are_refused(mine: Path, tmp_path: Path) -> None:
    def refused(named: object, split: str = "train", count: int = 1) -> str:
        with pytest.raises(BadInput) as refusal:
            TextWorld(games=named).tasks("games", split, count)  # type: ignore[arg-type]
        return str(refusal.value)

    games = by_split(mine)
    assert refused(None).startswith("games: no games of your own are named.")
    assert "there are 1 games of your own for test, not 2" in refused(games, "test", 2)
    assert "there is no split 'exam'" in refused({"exam": str(mine)})
    assert "no .z8 file is there" in refused(str(tmp_path / "nowhere"))
    assert "it is no .z8 file" in refused(str(mine / "train" / "house.json"))
    assert "are the same game" in refused(games | {"validation": str(mine / "test")})
    (mine / "test" / "house.json").write_text("[]")
    assert "it is not what TextWorld writes beside a game" in refused(games)
    (mine / "test" / "house.json").unlink()
    assert "without it nothing says what wins the game" in refused(games)
    beside = mine / "train" / "house.json"
    content = json.loads(beside.read_text())
    content["metadata"]["walkthrough"] = ["look"]
    beside.write_text(json.dumps(content))
    assert "its own walkthrough does not win it" in refused({"train": str(beside.parent)})
    del content["metadata"]["walkthrough"]  # by hand, or by an older TextWorld: the planner is the expert
    beside.write_text(json.dumps(content))
    world = TextWorld(games={"train": str(beside.parent)})
    task = world.tasks("games", "train", 1)[0]
    assert task.rewards == 1 and won(world, task)
    world.close()


def test_a_run_trains_on_own_games(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(TOY.format(weights=tiny_model_folder(tmp_path / "tiny")))
    args = [
        "--data.environment",
        "lit_agents.environment.textworld.TextWorld",
        "--data.tasks",
        "games",
        "--data.reward",
    ]
    args += ["lit_agents.reward.outcome.Outcome", "--data.environment.init_args.games", json.dumps(by_split(mine))]
    for name in ("train_tasks", "validation_tasks", "test_tasks", "schedule.tasks"):
        args += [f"--data.{name}", "1"]
    args += [
        "--data.limits.context",
        "3000",
        "--data.schedule.micro_batch_tokens",
        "12000",
        "--sft",
        "null",
        "--run",
        "run",
        *ONE_ITERATION,
    ]
    run = fit(["--config", "toy.yaml", *args])
    assert run.results["rl"].n == 1


def test_the_tasks_command_takes_own_games_and_seeds(
    mine: Path, games_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--games", json.dumps(by_split(mine)), "--spec", "games", "--split", "test", "--count", "1"]
    assert main(["textworld", *named]) == 0
    said = capsys.readouterr().out
    assert "1 tasks of games, split test" in said and "the expert won 1 of 1" in said
    assert "none is among the first 1 of train, 1 of sft, 1 of validation" in said
    seeds = ["--seeds", "{train: [30001, 30002], test: [30002, 30009]}", "--folder", str(games_folder)]
    assert main(["textworld", *seeds, "--spec", "w2-o3-q4", "--count", "1"]) == 2
    assert "seeds: test and train share seeds 30002 to 30002." in capsys.readouterr().err


@pytest.mark.parametrize(
    "spec", ["tw-coin_collector-level2", "tw-treasure_hunter-level2", "tw-cooking-recipe1-open-cook"]
)
def test_challenges_are_made_and_won(textworld: TextWorld, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    monkeypatch.setattr("lit_agents.environment.checker.SPLITS", ("train",))  # two games; those of each have to be made
    task = textworld.tasks(spec, "train", 2)[0]
    assert task.family == spec and task.id == "30001" and won(textworld, task)
    textworld.close()
    assert check_env(textworld, task) == []


def test_challenges_are_told_from_their_names() -> None:
    assert challenge("tw-coin_collector-level150", "train") == ChallengeGames("coin_collector", {"level": 150})
    made = challenge("tw-cooking-recipe3-take2-go6-open-cut", "validation")
    skills = {"open": True, "cook": False, "cut": True, "drop": False}
    assert made == ChallengeGames(
        "cooking", {"recipe": 3, "take": 2, "go": 6, **skills, "recipe_seed": 0, "split": "valid"}
    )
    assert [challenge("tw-cooking-recipe1", split).settings["split"] for split in SPLITS] == [  # type: ignore[union-attr]
        "train", "train", "valid", "test",
    ]  # fmt: skip
    assert challenge("w2-o3-q4", "train") is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("tw-coin_collector-level301", "no level 301"),
        ("tw-coin_collector-level200", "200 rooms"),
        ("tw-treasure_hunter-level31", "no level 31"),
        ("tw-cooking-recipe2-take3", "as many as the recipe has"),
        ("tw-cooking-recipe1-go7", "go1, go6, go9 or go12"),
        ("tw-cooking-recipe1-cut-cook", "names no challenge"),
    ],
)
def test_challenges_that_there_are_not_are_refused(textworld: TextWorld, spec: str, said: str) -> None:
    with pytest.raises(BadInput, match=said) as refusal:
        textworld.tasks(spec, "train", 1)
    assert refusal.value.where == "spec"


def test_seeds_may_be_chosen_and_splits_share_none(textworld: TextWorld, games_folder: Path) -> None:
    world = TextWorld(str(games_folder), 2, seeds={"train": [30_002, 30_003]})
    assert world.tasks("w2-o3-q4", "train", 2) == textworld.tasks("w2-o3-q4", "train", 3)[1:]  # the same games
    with pytest.raises(BadInput, match="train has 2 seeds, not 3"):
        world.tasks("w2-o3-q4", "train", 3)
    assert seed_ranges({"train": [50_001, 60_000]})["train"] == range(50_001, 60_001)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ({"train": [1, 10], "test": [10, 20]}, "share seeds 10 to 10."),
        ({"train": [9_000, 12_000]}, r"test and train share seeds 9000 to 10000 \(the former's is its default\)"),
        ({"exam": [1, 2]}, "no split 'exam'"),
        ({"train": [5]}, "not a first and a last seed"),
        ({"train": [9, 5]}, "not a first and a last seed"),
    ],
)
def test_seeds_that_overlap_or_are_no_range_are_refused(seeds: dict[str, list[int]], said: str) -> None:
    with pytest.raises(BadInput, match=said) as refusal:
        TextWorld(seeds=seeds)
    assert refusal.value.where == "seeds"
