"""Playing TextWorld: what the agent is shown, what counts as what, and what must not reach the interpreter."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from lit_agents.environment.base import Transition
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.environment.textworld.game import META, SUCCESS, TRACE
from lit_agents.errors import BadInput
from lit_agents.types import Task

pytest.importorskip("textworld")


@pytest.fixture
def custom(textworld: TextWorld) -> list[Task]:
    return textworld.tasks("w2-o3-q4", "train", 4)


@pytest.fixture
def simple(textworld: TextWorld) -> list[Task]:
    return textworld.tasks("tw-simple-dense", "train", 2)


def walkthrough(task: Task) -> list[str]:
    commands: list[str] = json.loads(Path(task.path).with_suffix(".json").read_text())["metadata"]["walkthrough"]
    return commands


def play(world: TextWorld, commands: list[str]) -> list[Transition]:
    return [world.step(command) for command in commands]


def test_walkthroughs_win_and_score_as_the_task_says(
    textworld: TextWorld, custom: list[Task], simple: list[Task]
) -> None:
    for task in custom + simple:
        start = textworld.reset(task)
        *before, end = play(textworld, walkthrough(task))
        assert end.terminated and end.won and not end.lost and end.score == start.max_score
        assert not any(step.terminated or step.won or step.lost for step in before)
        assert all(step.valid for step in [*before, end])
        scores = [0.0, *(step.score for step in [*before, end])]
        assert sum(after > earlier for earlier, after in pairwise(scores)) == task.rewards
    assert {task.rewards for task in custom} == {1} and all(task.rewards in (7, 8, 10) for task in simple)


def words(text: str) -> list[str]:
    """Without status line, prompt, heading, trace and what is asked after the end, by another route than ours."""
    text = re.split(r"\n>? {20,}-=|Would you like to RESTART", TRACE.sub("", text))[0]
    return [word for line in text.split("\n") if not line.startswith("-= ") for word in line.split()]


@pytest.mark.filterwarnings("ignore:Game:UserWarning")
def test_games_are_what_textworld_start_makes_of_them(
    textworld: TextWorld, custom: list[Task], simple: list[Task]
) -> None:
    import textworld as reference

    wanted = reference.EnvInfos(inventory=True, admissible_commands=True, won=True, lost=True, objective=True)
    for task in custom + simple:
        env, world = reference.start(task.path, request_infos=wanted), textworld
        state, start = env.reset(), world.reset(task)
        room, _, opening = state.feedback.partition("\n-= ")[2].partition(" =-")
        *_, first = start.observation.partition(state.objective.strip())
        assert first.removesuffix("\nCommand:").split() == [
            *f"{room}:".split(),
            *words(opening),
            *state.inventory.split(),
        ]
        assert start.max_score == state.max_score
        some = state.admissible_commands[::2]
        for command in [*some, "look", "xyzzy", "take it", "help", "goal", "inventory", *walkthrough(task)]:
            state, score, done = env.step(command)
            step = world.step(command)
            said = step.observation.partition(": ")[2].removesuffix("\nCommand:").split()
            assert (said, step.score, step.terminated) == (words(state.feedback), score, done), command
            assert (step.won, step.lost) == (state.won, state.lost)
            if done:
                break
        env.close()


def test_playing_does_not_import_what_only_hints_need(custom: list[Task]) -> None:
    """It takes a second, which is most of the time until many games have begun."""
    code = f"""
import sys
from lit_agents.environment.textworld.env import TextWorld, Task
world = TextWorld()
world.fingerprint()
assert "jericho" in sys.modules, "each session would import it"
world.reset({custom[0]!r})
for command in {walkthrough(custom[0])!r}:
    assert world.expert_action() == command
    end = world.step(command)
assert end.won and "textworld" not in sys.modules, "textworld was imported"
world.prepare_hints()
assert "textworld" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_first_message_is_role_rule_goal_state_and_cue(textworld: TextWorld, custom: list[Task]) -> None:
    for task in custom:
        lines = textworld.reset(task).observation.split("\n")
        game = json.loads(Path(task.path).with_suffix(".json").read_text())
        assert "win" in lines[0] and "starts with a verb" in lines[0]
        assert lines[1] == f"Goal: {game['objective'].strip()}"
        assert re.match(r"[A-Z][\w' -]*: ", lines[2])
        assert lines[-2].startswith("You are carrying") and lines[-1] == "Command:"


def test_no_banner_status_line_trace_or_empty_line_is_shown(
    textworld: TextWorld, custom: list[Task], simple: list[Task]
) -> None:
    for task in custom + simple:
        texts = [textworld.reset(task).observation]
        commands = ["look", "inventory", "examine me", "xyzzy", "go north", "go south", "goal", "help", "", "score"]
        texts += [step.observation for step in play(textworld, [*commands, *walkthrough(task)])]
        for text in texts:
            assert not re.search(r"\$\$|-=|=-|\[|\]|>|<|RESTART|tw-|\n\s*\n|  ", text.replace("<dir>", ""))
            assert text == text.strip()


def test_the_room_is_named_where_the_agent_is(textworld: TextWorld, simple: list[Task]) -> None:
    textworld.reset(simple[0])
    rooms = [step.observation.partition(":")[0] for step in play(textworld, walkthrough(simple[0])[:5])]
    assert rooms == ["Bedroom"] * 4 + ["Kitchen"]


def test_the_expert_wins_from_the_start_and_after_a_detour(
    textworld: TextWorld, custom: list[Task], simple: list[Task]
) -> None:
    for task in [*custom[:2], simple[0]]:
        for detour in ([], ["look", "nonsense", *walkthrough(task)[:1], "go north", "go south", "wait", "inventory"]):
            textworld.reset(task)
            play(textworld, detour)
            for _ in range(30):
                action = textworld.expert_action()
                assert action is not None
                if (step := textworld.step(action)).terminated:
                    break
            assert step.won


def test_the_expert_undoes_what_leads_away(textworld: TextWorld, simple: list[Task]) -> None:
    textworld.reset(simple[0])
    commands = walkthrough(simple[0])
    play(textworld, [*commands[:4], commands[3].replace("open", "close")])
    assert textworld.expert_action() == commands[3]


def test_eating_the_food_loses_and_keeps_the_score(textworld: TextWorld, simple: list[Task]) -> None:
    start = textworld.reset(simple[0])
    commands = walkthrough(simple[0])
    food = re.sub(r"put (.*) on stove", r"\1", commands[-1])
    *_, end = play(textworld, [*commands[:-1], f"eat {food}"])
    assert end.terminated and end.lost and not end.won and end.score == start.max_score - 1
    with pytest.raises(RuntimeError, match="over"):
        textworld.step("restart")
    assert textworld.reset(simple[0]) == start


@pytest.mark.parametrize(
    "command",
    ["xyzzy", "open", "take foo", "go up", "go west", "take all", "put bed on bed", "unlock wooden door", "eat trunk",
     "open wooden door", "go east", "take antique trunk", "close chest drawer", "the door", "open the", "drop old key"],
)  # fmt: skip
def test_a_command_that_is_refused_is_invalid(textworld: TextWorld, simple: list[Task], command: str) -> None:
    textworld.reset(simple[0])
    assert not textworld.step(command).valid


@pytest.mark.parametrize("command", ["look", "inventory", "x bed", "open chest drawer", "OPEN THE Trunk.", "wait"])
def test_a_command_that_is_carried_out_is_valid(textworld: TextWorld, simple: list[Task], command: str) -> None:
    textworld.reset(simple[0])
    assert textworld.step(command).valid


def test_no_other_state_is_called_valid_than_the_possible_commands(textworld: TextWorld, simple: list[Task]) -> None:
    """The trace, which validity is read from, against the list of possible commands, which it is not."""
    for done in range(len(walkthrough(simple[0]))):
        textworld.reset(simple[0])
        play(textworld, walkthrough(simple[0])[:done])
        possible = textworld.admissible_actions()
        assert walkthrough(simple[0])[done] in possible
        for command in possible:
            textworld.reset(simple[0])
            *_, step = play(textworld, [*walkthrough(simple[0])[:done], command])
            assert step.valid, command


HOSTILE = [
    "", "   ", "\n\n", "quit", "QUIT", "q", "restart", "Restart.", "restore", "save", "undo", "script", "script on",
    "transcript", "transcript on", "transcripts", "verify", "version", "score", "notify off", "superbrief",
    "superbriefly", "verbose", "brief", "long", "again", "g", "oops", "pronouns", "nouns", "print_state",
    "enable print state option",
    "tw-extra-infos description", "tw-trace-actions", "tw-print", "restrict commands", "look. quit", "look then quit",
    "look, quit", "look; quit", "\\x", "\\help", "\x00", "look\x00quit", "\x1b[2J", "\x08\x08", "l\u00f6\u00f6k",
    "\ud800", "\U0001f600", "x" * 100_000, "look " * 40, "$verify", "#record on", '"look"', "*", ">",
]  # fmt: skip


def test_hostile_actions_are_invalid_and_change_nothing(
    textworld: TextWorld, custom: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    textworld.reset(custom[0])
    room = textworld.step("look").observation
    for action in HOSTILE:
        step = textworld.step(action)
        assert not step.valid and not step.terminated and step.score == 0.0, action[:40]
        assert len(step.observation) < 100
    assert textworld.step("look").observation == room
    assert play(textworld, walkthrough(custom[0]))[-1].won
    assert not list(tmp_path.iterdir())


def test_only_the_last_line_is_played(textworld: TextWorld, custom: list[Task]) -> None:
    textworld.reset(custom[0])
    end = play(textworld, [f"quit\nI think about it.\n  {command}. \n \n" for command in walkthrough(custom[0])])[-1]
    assert end.won


@pytest.mark.filterwarnings("ignore:Game:UserWarning")
def test_every_word_of_the_dictionary_that_is_no_move_in_the_world_is_refused(simple: list[Task]) -> None:
    """What is carried out without taking a turn is of the interpreter, not of the world."""
    import jericho

    game = jericho.FrotzEnv(simple[0].path)
    game.reset()
    words = {word.word for word in game.get_dictionary()}
    game.step("tw-trace-actions")
    for word in sorted(words):
        if META.match(word) or "_" in word:
            continue
        turns = [re.search(r"=--?\d+/(\d+)", game.step(command)[0]) for command in ("look", word, "look")]
        before, after = (int(turn[1]) for turn in (turns[0], turns[2]) if turn)
        if after == before + 1:
            assert SUCCESS.search(game.step(word)[0]) is None, word


def test_a_game_that_is_cut_in_half_is_refused(textworld: TextWorld, custom: list[Task], tmp_path: Path) -> None:
    for suffix in (".z8", ".json"):
        shutil.copy(Path(custom[0].path).with_suffix(suffix), tmp_path / f"alone{suffix}")
        with pytest.raises(BadInput, match="half of the game's pair"):
            textworld.reset(replace(custom[0], path=str(tmp_path / "alone.z8")))
        (tmp_path / f"alone{suffix}").unlink()


def test_many_games_are_played_at_once(textworld: TextWorld, custom: list[Task], simple: list[Task]) -> None:
    tasks = dict(enumerate([*custom, *simple]))
    with EnvPool(textworld, len(tasks)) as pool:
        starts = pool.reset(tasks)
        live, won = set(tasks), 0
        while live:
            answers = pool.step({n: str(action) for n, action in pool.ask_expert(live).items()})
            assert not any(isinstance(answer, Failure) for answer in answers.values())
            done = {n: answer for n, answer in answers.items() if isinstance(answer, Transition) and answer.terminated}
            won += sum(answer.won for answer in done.values())
            live -= set(done)
        assert won == len(tasks)
        assert pool.reset(tasks) == starts


def test_without_textworld_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(BadInput, match="pip install textworld"):
        TextWorld().fingerprint()


def test_results_name_the_version(textworld: TextWorld) -> None:
    assert textworld.fingerprint()["textworld"].count(".") == 2
