"""Text and files from strangers: any observation, any action, and what a folder of weights, a checkpoint or a game may hold."""

from __future__ import annotations

import json
import os
import pickle
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lit_agents.algorithm.batch import columns_of
from lit_agents.algorithm.checkpoint import read_checkpoint
from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.errors import BadInput, printable
from lit_agents.evaluation.audit.tokens import Findings, check_episode
from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.fit import main
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.chat import ChatFormat
from lit_agents.policy.hub import PACKAGED, find_weights
from lit_agents.reward.dense import ScoreGain
from lit_agents.rollout.collector import Collector, Job
from lit_agents.rollout.schedule import Limits
from lit_agents.types import StopReason, Task, TurnRewards
from tests.environment import fake_worlds
from tests.reward.episodes import episode
from tests.rollout.puppets import LocalPool, Scripted
from tests.tiny import tiny_model_folder, tiny_tokenizer

SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|im_start|>assistant\n",
    "<think>",
    "</think>",
    "<|im_end|>\n",
]
NASTY = st.one_of(
    st.text(st.characters()),  # every character there is, lone surrogates too
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Co"])),
    st.lists(st.sampled_from([*SPECIAL, "\x00", "\x1b[2J", "\r\n", " ", "open door", "\ud800"])).map("".join),
    st.tuples(st.sampled_from(string.printable), st.integers(0, 100_000)).map(lambda pair: pair[0] * pair[1]),
)
ANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    """That of the model which is really trained."""
    return ChatFormat.from_tokenizer(AutoTokenizer.from_pretrained(find_weights(PACKAGED)))


class Says(TextEnvironment):
    """Its observations are what a test wants, its tasks are empty."""

    text = "?"

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return [Task(spec, str(i), split) for i in range(count)]

    def reset(self, task: Task) -> Start:
        return Start("Begin.")

    def step(self, action: str) -> Transition:
        return Transition(self.text, 0.0)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def missing(chat: ChatFormat) -> set[int]:
    return missing_bytes(chat)


def missing_bytes(chat: ChatFormat) -> set[int]:
    """Bytes the vocabulary has no token for; a byte-level tokenizer drops each of them without a word."""
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in shown]
    letters = {b: chr(b) for b in shown} | {b: chr(256 + n) for n, b in enumerate(others)}  # GPT-2's names of bytes
    vocabulary = chat.plain.get_vocab()
    return {byte for byte, letter in letters.items() if letter not in vocabulary}


def test_smollm2_cannot_see_six_control_characters_and_characters_that_are_not_assigned(chat: ChatFormat):
    never_in_utf8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
    assert missing_bytes(chat) - never_in_utf8 == {0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2}  # F1, F2: U+40000 on


# observations


@ANY
@given(text=NASTY)
@example(text="".join(SPECIAL))
@example(text="\n".join(["x" * 100_000] * 2))
def test_no_observation_writes_a_special_token_or_is_changed_on_its_way(chat: ChatFormat, missing: set[int], text: str):
    special = set(chat.tokenizer.added_tokens_decoder)
    frame = len([i for i in chat.next("") if i in special])
    ids = chat.next(text)
    assert len([i for i in ids if i in special]) == frame  # those of the template alone
    inside = ids[len(chat.glue_ids) : len(ids) - len(chat.tail_ids)]
    sound = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not missing & set(sound.encode()):
        assert chat.plain.decode(inside, skip_special_tokens=False) == f"user\n{sound}"


@ANY
@given(text=NASTY)
def test_an_episode_with_any_observation_ends_and_its_record_is_sound(text: str):
    small = ChatFormat.from_tokenizer(tiny_tokenizer())
    world = Says()
    world.text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # the pool takes no lone surrogates
    player = Scripted(small, lambda key: ["look"])
    collector = Collector(LocalPool(world), small, Limits(turns=3, context=3000, concurrent=1), 20)
    (played,) = collector.collect([Job(Task("f", "1", "train"), 0, ("k",))], player)
    assert played.stop in (StopReason.TURN_LIMIT, StopReason.CONTEXT_LIMIT)
    assert len(played.token_ids) <= 3000
    stored = StoredEpisode("rl", 1, played, TurnRewards.of({"r": [0.0] * len(played.turns)}))
    line = stored.row()
    assert "\n" not in line and StoredEpisode.of(line) == stored
    findings = Findings()
    check_episode(stored, small, findings)
    assert [f for f in findings.faults if "sampled after" not in f and "log-prob" not in f] == []


def test_a_line_of_100_kb_ends_the_episode_at_its_context_limit_in_the_real_pool(chat: ChatFormat):
    with EnvPool(fake_worlds.Puppet(), 2) as pool:
        collector = Collector(pool, chat, Limits(turns=4, context=1024, concurrent=2), 24)
        script = {"1": ["long 100000"], "2": ["look", "win"]}
        player = Scripted(chat, lambda key: script[str(key[0])])
        jobs = [Job(Task("puppet", name, "train"), 0, (name,)) for name in script]
        found = collector.collect(jobs, player)
    assert [e.stop for e in found] == [StopReason.CONTEXT_LIMIT, StopReason.WON]
    assert len(found[0].token_ids) < 1024


# actions


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TextWorld, Task]]:
    pytest.importorskip("textworld")
    world = TextWorld(str(tmp_path_factory.mktemp("games")))
    yield world, world.tasks("w2-o3-q4", "train", 1)[0]
    world.close()


@ANY
@given(actions=st.lists(NASTY, min_size=1, max_size=6))
@example(actions=["", " ", "\x00", "\ud800", "x" * 100_000, "save", "tw-reveal", "restart", "quit", "> open door"])
def test_no_action_breaks_a_real_game_or_lends_it_a_win(game: tuple[TextWorld, Task], actions: list[str]):
    world, task = game
    world.reset(task)
    for action in actions:
        found = world.step(action)
        assert (isinstance(found.observation, str) and found.observation.isprintable()) or "\n" in found.observation
        assert not found.won and not found.lost and found.score == 0
        found.observation.encode()  # no surrogate came back
    plan = []
    while (command := world.expert_action()) is not None and len(plan) < 12:
        plan.append(world.step(command))
        if plan[-1].won:
            break
    assert plan[-1].won  # the game can still be won


@ANY
@given(action=NASTY)
def test_any_action_passes_the_pool_unharmed(echo: EnvPool, action: str):
    found = echo.step({0: f"look {action}"})[0]
    assert isinstance(found, Transition)


@pytest.fixture(scope="module")
def echo() -> Iterator[EnvPool]:
    with EnvPool(fake_worlds.Puppet(), 1) as pool:
        pool.reset({0: fake_worlds.TASK})
        yield pool


def test_an_empty_action_is_played_trained_and_costs_a_turn():
    small = ChatFormat.from_tokenizer(tiny_tokenizer())
    player = Scripted(small, lambda key: [""])
    pool = LocalPool(Says())
    (played,) = Collector(pool, small, Limits(turns=2, context=400, concurrent=1), 20).collect(
        [Job(Task("f", "1", "train"), 0, ("k",))], player
    )
    assert [t.action_ids for t in played.turns] == [(small.end_id,)] * 2 and pool.played == [{0: ""}, {0: ""}]
    columns = columns_of([played], [TurnRewards.of({"r": [1.0, 2.0]})])
    assert columns.mask_BA.tolist() == [[True, True]] and columns.rewards_BA.tolist() == [[1.0, 2.0]]


@ANY
@given(text=NASTY)
def test_an_error_that_quotes_anything_is_one_line_that_steers_no_terminal(text: str):
    message = str(BadInput("data.environment", f"it said {text}.", "Mend it."))
    assert message.isprintable() and message == printable(message)
    message.encode()


# numbers


@pytest.mark.parametrize("score", [0.0, -1.0, float("nan"), float("inf")])
def test_a_win_that_is_worth_nothing_is_garbage_before_a_reward_divides_by_it(score: float):
    class Worthless(fake_worlds.CorridorWorld):
        def reset(self, task: Task) -> Start:
            return Start(super().reset(task).observation, max_score=score)

    from lit_agents.environment.checker import start_fault

    world = Worthless()
    assert "not a finite number above 0" in start_fault(world.reset(world.tasks("n5", "train", 1)[0]))


def test_a_reward_that_is_no_number_stops_the_run_by_name():
    played = episode([1e308, 1e308], StopReason.WON, max_score=1e-10)
    with pytest.raises(BadInput, match=r"data.reward: it gave \(inf"):
        columns_of([played], [ScoreGain()(played)])


# files


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, toy: str, capfd):
    ran = tmp_path / "ran"
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "lit_agents": Payload(ran)}, path)
    with pytest.raises(BadInput, match="cannot be read as plain tensors"):
        read_checkpoint(path)
    assert not ran.exists()
    torch.load(path, weights_only=False)  # it would
    assert ran.exists()
    ran.unlink()
    run = tmp_path / "run"
    (run / "checkpoints" / "rl").mkdir(parents=True)
    (run / "config.yaml").touch()
    path.rename(run / "checkpoints" / "rl" / "last.ckpt")
    assert main(["--config", toy, "--run", str(run), "--ckpt_path", "last"]) == 2
    assert "cannot be read as plain tensors" in capfd.readouterr().err and not ran.exists()


def test_weights_that_bring_code_are_refused_and_run_none(tmp_path: Path):
    folder, ran = tiny_model_folder(tmp_path / "model"), tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    for device in ("cpu", "meta"):
        with pytest.raises(BadInput, match="comes with code of its own"):
            CausalLMPolicy(str(folder)).load(device)
    assert not ran.exists()


def test_weights_that_are_pickles_or_cut_are_refused(tmp_path: Path):
    folder, ran = tiny_model_folder(tmp_path / "model"), tmp_path / "ran"
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:1000])
    with pytest.raises(BadInput, match="cannot be loaded"):
        CausalLMPolicy(str(folder)).load()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(ran)))
    with pytest.raises(BadInput, match=r"not all its \*.safetensors"):
        CausalLMPolicy(str(folder)).load()
    assert not ran.exists()


@pytest.mark.parametrize(
    "story", [b"", b"\x08" + bytes(range(1, 65)), b"not a game" * 1000, pickle.dumps(Payload(Path("ran")))]
)
def test_a_game_file_that_is_none_is_a_typed_failure(game: tuple[TextWorld, Task], tmp_path: Path, story: bytes):
    """From a stranger's set, whose index says that all is well."""
    from dataclasses import replace

    _, task = game
    bad = tmp_path / "7.z8"
    bad.write_bytes(story)
    bad.with_suffix(".json").write_bytes(Path(task.path).with_suffix(".json").read_bytes())
    with EnvPool(TextWorld(), 2, reset_timeout=20) as pool:
        answers = pool.reset({0: replace(task, path=str(bad)), 1: task})
        assert isinstance(answers[0], Failure) and isinstance(answers[1], Start)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"objective": 1}', '{"objective": "x", "metadata": {}, "quests": []}']
)
def test_a_games_description_that_is_none_is_a_typed_failure(game: tuple[TextWorld, Task], tmp_path: Path, text: str):
    from dataclasses import replace

    _, task = game
    bad = tmp_path / "7.z8"
    bad.write_bytes(Path(task.path).read_bytes())
    bad.with_suffix(".json").write_text(text)
    with EnvPool(TextWorld(), 1) as pool:
        failure = pool.reset({0: replace(task, path=str(bad))})[0]
        # a game without quests can be read, and has nothing to win
        kind = StopReason.ENVIRONMENT_GARBAGE if "quests" in text else StopReason.ENVIRONMENT_CRASH
        assert isinstance(failure, Failure) and failure.stop is kind
