"""Making and keeping TextWorld games: the right ones, whole, the same ones everywhere, and told when they are not."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_agents import tasks as command
from lit_agents.environment.textworld.env import SEEDS, TextWorld
from lit_agents.environment.textworld.generate import CustomGames, SimpleGames, game_maker, generate
from lit_agents.environment.textworld.index import read_index
from lit_agents.errors import BadInput

pytest.importorskip("textworld")
TW_MAKE = shutil.which("tw-make", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(TW_MAKE is None, reason="tw-make is not beside this interpreter")
@pytest.mark.parametrize(
    ("spec", "split", "options"),
    [
        ("w2-o3-q4", "train", "custom --world-size 2 --nb-objects 3 --quest-length 4"),
        ("tw-simple-dense", "train", "tw-simple --rewards dense --goal detailed"),
        ("tw-simple-dense", "test", "tw-simple --rewards dense --goal detailed --test"),
        ("tw-coin_collector-level2", "train", "tw-coin_collector --level 2"),
        ("tw-cooking-recipe1-open-cook", "test", "tw-cooking --recipe 1 --open --cook --split test"),
    ],
)
def test_a_game_is_the_one_that_tw_make_makes(
    textworld: TextWorld, tmp_path: Path, spec: str, split: str, options: str
) -> None:
    """The second of a set, made by a process that made others before it, against a process of its own."""
    task = textworld.tasks(spec, split, 4 if spec[0] == "w" else 2)[-1]
    arguments = [*options.split(), "--seed", task.id, "--output", str(tmp_path / "game.z8"), "--silent"]
    subprocess.run([sys.executable, str(TW_MAKE), *arguments], check=True, env=os.environ | {"PYTHONHASHSEED": "0"})
    theirs, ours = (tmp_path / "game.z8").read_bytes(), Path(task.path).read_bytes()
    assert ours[18:24] == b"000000" != theirs[18:24]  # the day it was compiled, which is no part of the game
    assert theirs[:18] + theirs[24:] == ours[:18] + ours[24:]
    described = [path.read_text() for path in (tmp_path / "game.json", Path(task.path).with_suffix(".json"))]
    if "cooking" in spec:  # tw-make notes its whole command line in it
        described = [re.sub(r'"settings": \{[^}]*\}', "", text) for text in described]
    assert described[0] == described[1]


def test_sets_are_prefixes_of_each_other_and_say_what_they_hold(textworld: TextWorld) -> None:
    tasks = textworld.tasks("w2-o3-q4", "train", 4)
    assert textworld.tasks("w2-o3-q4", "train", 2) == tasks[:2] and textworld.tasks("w2-o3-q4", "train", 0) == []
    assert [task.id for task in tasks] == ["30001", "30002", "30003", "30004"]
    assert len({task.sha256 for task in tasks}) == 4
    assert all(task.labels["difficulty"] == "w2-o3-q4" and task.labels["quest_length"] in "34" for task in tasks)
    assert {path.suffix for path in Path(tasks[0].path).parent.iterdir()} == {".z8", ".json", ".jsonl"}


def test_the_splits_share_no_seed() -> None:
    seeds = [seed for split in SEEDS.values() for seed in split]
    assert len(seeds) == len(set(seeds))
    assert [SEEDS[split].start for split in ("train", "sft", "test")] == [30_001, 40_001, 1]  # the paper's


@pytest.mark.parametrize(
    ("spec", "split", "count", "where"),
    [
        ("w2-o3", "train", 1, "spec"),
        ("w0-o3-q4", "train", 1, "spec"),
        ("tw-simple-rare", "train", 1, "spec"),
        ("w2-o3-q4", "exam", 1, "split"),
        ("w2-o3-q4", "test", 10_001, "count"),
    ],
)
def test_what_there_is_not_is_refused(textworld: TextWorld, spec: str, split: str, count: int, where: str) -> None:
    with pytest.raises(BadInput) as refusal:
        textworld.tasks(spec, split, count)
    assert refusal.value.where == where


def test_no_workers_and_a_folder_that_is_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be a folder") as refusal:
        TextWorld(str(tmp_path / "file")).tasks("w2-o3-q4", "train", 1)
    assert refusal.value.where == "folder"
    for workers in (0, -1):
        with pytest.raises(BadInput, match="is below 1") as refusal:
            TextWorld(str(tmp_path), workers).tasks("w2-o3-q4", "train", 1)
        assert refusal.value.where == "workers"


def test_families_are_told_from_their_names() -> None:
    assert game_maker("w12-o30-q9", "test") == CustomGames(rooms=12, objects=30, quest=9)
    assert game_maker("tw-simple-balanced", "validation") == SimpleGames("balanced", test=False)


@pytest.fixture
def two_games(textworld: TextWorld, tmp_path: Path) -> Path:
    """A copy of two games, for a test to spoil."""
    source = Path(textworld.tasks("w2-o3-q4", "train", 4)[0].path).parent
    target = tmp_path / "w2-o3-q4" / "train"
    target.mkdir(parents=True)
    for name in ("30001.z8", "30001.json", "30002.z8", "30002.json", "index.jsonl"):
        shutil.copy(source / name, target / name)  # not copy2: other times of modification, as on another machine
    return target


def test_games_may_be_moved(two_games: Path, textworld: TextWorld) -> None:
    moved = TextWorld(str(two_games.parents[1])).tasks("w2-o3-q4", "train", 2)
    assert [task.sha256 for task in moved] == [task.sha256 for task in textworld.tasks("w2-o3-q4", "train", 2)]


@pytest.mark.parametrize("suffix", [".z8", ".json"])
def test_a_spoilt_or_missing_file_is_named_with_the_way_out(two_games: Path, suffix: str) -> None:
    world, broken = TextWorld(str(two_games.parents[1]), workers=1), two_games / f"30002{suffix}"
    content = broken.read_bytes()
    broken.write_bytes(content[:-1] + b"?")
    with pytest.raises(BadInput, match=r"30002\.z8: it or the \.json beside it is not as it was made"):
        world.tasks("w2-o3-q4", "train", 2)
    broken.unlink()
    with pytest.raises(BadInput, match=r"python -m lit_agents\.tasks textworld --spec w2-o3-q4") as refusal:
        world.tasks("w2-o3-q4", "train", 2)
    assert refusal.value.where == str(broken)
    assert len(world.tasks("w2-o3-q4", "train", 1)) == 1  # the other is as good as before


def test_the_way_out_leads_out(two_games: Path, textworld: TextWorld) -> None:
    for path in two_games.glob("30002.*"):
        path.unlink()
    tasks = TextWorld(str(two_games.parents[1]), workers=1).tasks("w2-o3-q4", "train", 2)
    assert [task.sha256 for task in tasks] == [task.sha256 for task in textworld.tasks("w2-o3-q4", "train", 2)]


def test_a_row_that_was_cut_costs_its_game_only(two_games: Path) -> None:
    index = two_games / "index.jsonl"
    lines = index.read_text().splitlines()
    (second,) = [line for line in lines if '"seed": 30002' in line]
    index.write_text("\n".join([*(line for line in lines if line != second), second[:30]]))
    assert 30_001 in read_index(two_games) and 30_002 not in read_index(two_games)
    TextWorld(str(two_games.parents[1]), workers=1).tasks("w2-o3-q4", "train", 2)
    assert {30_001, 30_002} <= read_index(two_games).keys()


def test_a_killed_generation_goes_on_where_it_was(tmp_path: Path) -> None:
    options = ["--spec", "w2-o3-q4", "--split", "sft", "--count", "3", "--folder", str(tmp_path), "--workers", "1"]
    arguments = [sys.executable, "-m", "lit_agents.tasks", "textworld", *options]
    folder = tmp_path / "w2-o3-q4" / "sft"
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as generation:
        while not read_index(folder) and generation.poll() is None:
            time.sleep(0.01)
        generation.send_signal(signal.SIGKILL)
    first = folder / "40001.z8"
    made = first.stat().st_mtime_ns
    assert command.main(["textworld", *options]) == 0
    assert first.stat().st_mtime_ns == made and len(read_index(folder)) == 3


def test_a_game_that_its_own_walkthrough_does_not_win_is_left_out_and_not_made_again(tmp_path: Path) -> None:
    seeds = {"train": [30_197, 30_299]}  # 30198 has a "safe" beside a "Henderson's safe"
    world = TextWorld(str(tmp_path), workers=1, seeds=seeds)
    assert [task.id for task in world.tasks("w2-o3-q4", "train", 2)] == ["30197", "30199"]
    folder = tmp_path / "w2-o3-q4" / "train"
    assert read_index(folder)[30_198].fault == "its walkthrough does not win"
    assert not list(folder.glob("30198.*"))
    before = (folder / "index.jsonl").read_bytes()
    assert [task.id for task in world.tasks("w2-o3-q4", "train", 1)] == ["30197"]
    assert len(world.tasks("w2-o3-q4", "train", 2)) == 2 and (folder / "index.jsonl").read_bytes() == before
    with pytest.raises(BadInput, match="there are 1 such games, not 2"):
        TextWorld(str(tmp_path), workers=1, seeds={"train": [30_198, 30_199]}).tasks("w2-o3-q4", "train", 2)


def test_a_game_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="seed 5 of w0-o0-q0 cannot be made"):
        generate("w0-o0-q0", tmp_path, [5, 6], workers=2)
    assert not list(tmp_path.iterdir())


def test_rows_are_readable(textworld: TextWorld) -> None:
    folder = Path(textworld.tasks("w2-o3-q4", "train", 4)[0].path).parent
    rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines() if line]
    assert {"seed", "sha256", "stamps", "steps", "rewards", "fault"} == set(rows[0])
