"""Episodes as they are played: how each ends, what each holds, and in which order they come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lit_agents.algorithm.batch import columns_of
from lit_agents.environment.base import TextEnvironment
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.environment.toy import CorridorWorld, EchoWorld
from lit_agents.errors import BadInput
from lit_agents.policy.chat import ChatFormat
from lit_agents.policy.engine.base import Request, Sampled
from lit_agents.policy.sampling import Sampling
from lit_agents.reward.outcome import Outcome
from lit_agents.rollout.agents import (
    Choice,
    ExpertPlayer,
    Player,
    PolicyPlayer,
    RandomPlayer,
    Situation,
    has_no_player,
)
from lit_agents.rollout.collector import Collector, Job
from lit_agents.rollout.runner import Stage as RunningStage
from lit_agents.rollout.schedule import Limits, Window
from lit_agents.types import Episode, StopReason, Task, in_sight, tokens_of
from tests.integration.flaky import FlakyEcho, Mute, Stumped
from tests.rollout.puppets import Hesitant, LocalPool, Scripted, Stage
from tests.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat.from_tokenizer(tiny_tokenizer())


def job(name: str) -> Job:
    return Job(Task("f", name, "train"), 0, ("seed", name))


def play(
    chat: ChatFormat, scripts: dict[str, list[str | Choice | Failure | None]], **limits: int
) -> tuple[list[Episode], Scripted, LocalPool]:
    """One episode per script, by name of the task."""
    player = Scripted(chat, lambda key: scripts[str(key[1])])
    pool = LocalPool(Stage())
    collector = Collector(pool, chat, Limits(**({"turns": 4, "context": 2000, "concurrent": 3} | limits)), 20)
    return collector.collect([job(name) for name in scripts], player), player, pool


@pytest.mark.parametrize(
    ("script", "stop", "turns"),
    [
        (["look", "win"], StopReason.WON, 2),
        (["lose"], StopReason.LOST, 1),
        (["look", "end"], StopReason.ENDED, 2),
        (["look", "cut"], StopReason.TRUNCATED, 2),
        (["look"], StopReason.TURN_LIMIT, 4),
        (["look", "look", "look", "win"], StopReason.WON, 4),  # in the last turn there is
        (["look", "crash"], StopReason.ENVIRONMENT_CRASH, 1),
        (["look", Failure(StopReason.ENVIRONMENT_TIMEOUT, "slow")], StopReason.ENVIRONMENT_TIMEOUT, 1),
        ([Choice("win", tuple(range(20)))], StopReason.WON, 1),
        ([Choice("win", tuple(range(21)))], StopReason.UNFINISHED_ACTION, 1),  # more than an agent could say
        (["look", None], StopReason.ENDED, 1),  # an expert gave up on a sound game
        ([None], StopReason.ENVIRONMENT_GARBAGE, 0),
        (["look", Choice("win", (119, 105), (-1.0, -1.0), finished=False)], StopReason.UNFINISHED_ACTION, 2),
    ],
)
def test_an_episode_ends_for_the_reason_it_ended(chat: ChatFormat, script, stop: StopReason, turns: int):
    (episode,), _, _ = play(chat, {"1": script})
    assert (episode.stop, len(episode.turns)) == (stop, turns)
    assert episode.won == (stop is StopReason.WON)
    if stop is StopReason.ENVIRONMENT_CRASH:
        assert episode.error == "the lamp is broken"


def test_a_world_that_cannot_begin_is_a_failure_and_takes_nobody_with_it(chat: ChatFormat):
    episodes, player, _ = play(chat, {"1": ["win"], "broken": ["win"], "3": ["win"]}, concurrent=2)
    assert [e.stop for e in episodes] == [StopReason.WON, StopReason.ENVIRONMENT_CRASH, StopReason.WON]
    assert episodes[1].turns == () and episodes[1].error == "no such house" and ("seed", "broken") not in player.seen


def test_an_unfinished_action_is_kept_and_not_played(chat: ChatFormat):
    cut = Choice("gain gain gai", (5, 6, 7), (-1.0, -2.0, -3.0), finished=False)
    (episode,), _, pool = play(chat, {"1": ["gain", cut]})
    assert pool.played == [{0: "gain"}]
    last = episode.turns[-1]
    assert (last.action, last.action_ids, last.action_logprobs) == (cut.text, cut.ids, cut.logprobs)
    assert last.signals == {} and episode.score == 1.0
    columns = columns_of([episode], [Outcome(loss=-1.0)(episode)])
    assert columns.rewards_BA[0].tolist() == [0.0] * (columns.rewards_BA.shape[1] - 1) + [-1.0]


def test_an_episode_stops_where_the_next_action_might_not_fit_the_context(chat: ChatFormat):
    first, command = len(chat.first("task 1")), len(chat.action_ids("look"))
    following = len(chat.next("saw look"))
    lengths = [first + k * (command + following) for k in range(5)]  # before the action of each turn
    for k in (1, 2, 3):
        for context, turns in ((lengths[k] + 20, k + 1), (lengths[k] + 19, k)):  # 20: the longest action
            (episode,), _, _ = play(chat, {"1": ["look"]}, context=context, turns=9)
            limited = episode.stop is StopReason.CONTEXT_LIMIT
            assert (len(episode.turns), limited) == (turns, True)
    with pytest.raises(BadInput, match=rf"data\.limits\.context: {first + 19} tokens; the first message of task 1"):
        play(chat, {"1": ["look"]}, context=first + 19)


def test_every_turn_begins_with_all_that_was_said_before(chat: ChatFormat):
    scripts = {str(i): ["look", f"gain {i}", "mumble", "win" if i % 2 else "look"] for i in range(7)}
    episodes, player, _ = play(chat, dict(scripts))
    for name, episode in zip(scripts, episodes, strict=True):
        shown, before = player.seen[("seed", name)], []
        assert len(shown) == len(episode.turns) == 4
        for k, turn in enumerate(episode.turns):
            before += turn.observation_ids
            assert list(shown[k]) == before
            before += turn.action_ids
            expected = f"task {name}" if k == 0 else f"saw {scripts[name][k - 1]}"
            assert turn.observation == expected
            assert list(turn.observation_ids) == (chat.next(expected) if k else chat.first(expected))
        assert episode.token_ids == before
        assert all(turn.policy_version == 7 for turn in episode.turns)


def shown(
    chat: ChatFormat, context: int, turns: int, window: Window
) -> tuple[Episode, list[list[int]], list[Situation]]:
    """An episode of equal turns; which earlier turns were in sight of each action, read off the tokens; and what was asked."""
    player = Scripted(chat, lambda key: [f"say {i:02}" for i in range(turns)])
    limits = Limits(turns=turns, context=context, concurrent=1, window=window)
    (episode,) = Collector(LocalPool(Stage()), chat, limits, 20).collect([job("1")], player)
    situations = [s for r in player.rounds for s in r]
    own = [[*turn.observation_ids, *turn.action_ids] for turn in episode.turns]
    seen = []
    for k, situation in enumerate(situations):
        rest = list(situation.ids)
        assert len(rest) + 20 <= context and rest[-len(episode.turns[k].observation_ids) :] == list(
            episode.turns[k].observation_ids
        )
        rest = rest[: -len(episode.turns[k].observation_ids)]
        seen.append([j for j in range(k) if _starts(rest, own[j])])
        assert rest == []
    return episode, seen, situations


def _starts(rest: list[int], ids: list[int]) -> bool:
    found = rest[: len(ids)] == ids
    del rest[: len(ids) if found else 0]
    return found


LONG = 5000


@pytest.mark.parametrize(
    ("window", "expected"),
    [  # turns in sight before each of eight actions
        (Window(9, 4), [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6]]),
        (Window(2, 2), [[], [0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5], [0, 5, 6]]),
        (Window(3, 1), [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 4], [0, 4, 5], [0, 4, 5, 6]]),
        (Window(1, 0), [[], [0], [0, 1], [0], [0, 3], [0], [0, 5], [0]]),
        (Window(0, 0), [[], [0], [0], [0], [0], [0], [0], [0]]),
    ],
)  # fmt: skip
def test_old_turns_drop_out_of_sight_and_the_first_one_never(chat: ChatFormat, window: Window, expected):
    episode, seen, situations = shown(chat, LONG, 8, window)
    assert seen == expected and episode.stop is StopReason.TURN_LIMIT
    first = len(episode.turns[0].observation_ids) + len(episode.turns[0].action_ids)
    dropped = [k for k in range(1, 8) if not set(expected[k]) > set(expected[k - 1])]
    assert [k for k, s in enumerate(situations) if s.rewound is not None] == dropped
    assert {s.rewound for s in situations} <= {None, first}
    prompts = [[*tokens_of(in_sight(episode.turns[:k], t.window_start)), *t.observation_ids]
               for k, t in enumerate(episode.turns)]  # fmt: skip
    assert prompts == [list(s.ids) for s in situations]
    assert [[*c.ids][: c.places[0]] for c in episode.conversations] == [
        list(situations[k].ids) for k in [0, *dropped]
    ]  # what is trained is what was asked


def test_a_window_slides_when_the_context_is_full_and_keeps_less_if_it_must(chat: ChatFormat):
    whole, _, _ = shown(chat, LONG, 8, Window(9, 9))
    first, *others = (len(turn.observation_ids) + len(turn.action_ids) for turn in whole.turns)
    turn, last = others[0], len(whole.turns[1].observation_ids)
    assert len(set(others)) == 1
    room = first + 3 * turn + last + 20  # for three turns besides the first
    assert shown(chat, room, 6, Window(9, 2))[1] == [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 3, 4]]
    assert shown(chat, room - 1, 6, Window(9, 2))[1] == [[], [0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4]]
    room = first + turn + last + 20  # for one turn, though two are to be kept
    assert shown(chat, room, 5, Window(9, 2))[1] == [[], [0], [0, 1], [0, 2], [0, 3]]
    assert shown(chat, first + last + 20, 4, Window(9, 2))[1] == [[], [0], [0], [0]]
    episode, seen, _ = shown(
        chat, first + last + 19, 4, Window(9, 2)
    )  # not even the first and the newest observation fit
    assert episode.stop is StopReason.CONTEXT_LIMIT and seen == [[]]


@pytest.mark.parametrize(("turns", "keep"), [(3, 4), (-1, -1), (3, -1)])
def test_a_window_that_cannot_be_is_refused(turns: int, keep: int):
    with pytest.raises(BadInput, match=r"data\.limits\.window\.keep"):
        Window(turns, keep)


def test_signals_are_the_score_its_change_whether_the_action_was_valid_and_the_worlds_own(chat: ChatFormat):
    (episode,), _, _ = play(chat, {"1": ["gain", "mumble", "gain", "gain"]})
    assert [dict(t.signals) for t in episode.turns] == [
        {"score": 1.0, "gain": 1.0, "valid": True, "echo": "gain"},
        {"score": 1.0, "gain": 0.0, "valid": False, "echo": "mumble"},
        {"score": 2.0, "gain": 1.0, "valid": True, "echo": "gain"},
        {"score": 3.0, "gain": 1.0, "valid": True, "echo": "gain"},
    ]
    assert (episode.score, episode.max_score, episode.won) == (3.0, 3.0, False)  # a full score alone is no win


def test_results_keep_the_order_of_the_jobs_and_free_places_are_filled_at_once(chat: ChatFormat):
    lengths = [4, 1, 2, 1, 3, 1, 2]
    scripts: dict[str, list[str | Choice | Failure | None]] = {
        str(i): ["look"] * (n - 1) + ["win"] for i, n in enumerate(lengths)
    }
    episodes, player, _ = play(chat, scripts, concurrent=3)
    assert [e.task.id for e in episodes] == list(scripts)
    assert [len(e.turns) for e in episodes] == lengths
    # who plays in which round: a place that is free takes the next job before the next action
    rounds = [[str(s.key[1]) for s in r] for r in player.rounds]
    assert rounds == [["0", "1", "2"], ["0", "3", "2"], ["0", "4", "5"], ["0", "4", "6"], ["4", "6"]]
    assert {s.session for r in player.rounds for s in r} == {0, 1, 2}
    assert all([s.session for s in r] == sorted(s.session for s in r) for r in player.rounds)
    assert len(player.finished) == len(lengths)


def test_a_player_that_answers_one_by_one_plays_the_same_episodes(chat: ChatFormat):
    crash = Failure(StopReason.ENVIRONMENT_TIMEOUT, "slow")
    cut = Choice("win", (119, 105), (-1.0, -1.0), finished=False)
    scripts: dict[str, list[str | Choice | Failure | None]] = {
        "0": ["look", "gain", "win"], "1": ["lose"], "2": ["look", crash], "3": ["look"], "4": ["gain", cut], "5": ["crash"]
    }  # fmt: skip
    at_once, prompt, _ = play(chat, scripts, concurrent=3, context=300)
    player = Hesitant(chat, lambda key: scripts[str(key[1])])
    collector = Collector(LocalPool(Stage()), chat, Limits(turns=4, context=300, concurrent=3), 20)
    assert collector.collect([job(name) for name in scripts], player) == at_once
    assert player.seen == prompt.seen and len(player.finished) == len(scripts)
    assert len(player.rounds) > len(prompt.rounds) and [] in player.rounds  # waiting for what was asked before


def test_a_player_that_never_answers_is_an_error_and_its_episodes_are_over(chat: ChatFormat, monkeypatch):
    player = Scripted(chat, lambda key: ["look"])
    monkeypatch.setattr(player, "choose", lambda situations, pool: {})
    collector = Collector(LocalPool(Stage()), chat, Limits(concurrent=2), 20)
    with pytest.raises(RuntimeError, match="Scripted was asked for actions and returned none"):
        collector.collect([job(str(i)) for i in range(3)], player)
    assert player.finished == [0, 1]


def test_an_error_while_actions_are_under_way_ends_every_episode(chat: ChatFormat, monkeypatch):
    player, pool = Hesitant(chat, lambda key: ["look"]), LocalPool(Stage())
    monkeypatch.setattr(pool, "step", lambda moves: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Collector(pool, chat, Limits(concurrent=3), 20).collect([job(str(i)) for i in range(5)], player)
    assert len(player.asked) == 2 and player.finished == [0, 1, 2]


def test_progress_counts_every_episode_once(chat: ChatFormat):
    ended: list[int] = []
    player = Scripted(chat, lambda key: ["look", "win"])
    collector = Collector(LocalPool(Stage()), chat, Limits(concurrent=2), 20, ended.append)
    assert len(collector.collect([job(str(i)) for i in range(5)], player)) == sum(ended) == 5
    assert collector.collect([], player) == []


def test_a_check_names_the_task_that_cannot_be_begun_or_does_not_fit(chat: ChatFormat):
    collector = Collector(LocalPool(Stage()), chat, Limits(context=60), 20)
    collector.check([Task("f", "1", "train")], demonstrated=False)
    with pytest.raises(BadInput, match=r"task broken cannot be begun \(environment_crash: no such house\)"):
        collector.check([Task("f", "1", "train"), Task("f", "broken", "train")], demonstrated=False)
    with pytest.raises(BadInput, match=r"the first message of task 1{50} has"):
        collector.check([Task("f", "1" * 50, "train")], demonstrated=False)


# real processes


def test_what_the_environment_breaks_is_measured_again_and_counted(chat: ChatFormat, tmp_path: Path):
    def measured(world: TextEnvironment, retries: int) -> list[Episode]:
        stage = RunningStage(world, chat, Limits(turns=8, context=600, concurrent=4))
        try:
            tasks, player = world.tasks("r2-w2", "test", 5), ExpertPlayer(chat)
            return stage.evaluate(tasks, player, Sampling(), 1, lambda *_: None, samples=2, retries=retries)
        finally:
            stage.close()

    alone = measured(FlakyEcho(str(tmp_path / "a"), spared="none"), 0)  # the first episode of each task breaks
    assert [e.won for e in alone].count(True) == 5 and len(alone) == 10
    again = measured(FlakyEcho(str(tmp_path / "b"), spared="none"), 2)
    assert [e.won for e in again] == [True] * 10 + [False] * 5
    assert [(e.task.id, e.member) for e in again[:10]] == [(e.task.id, e.member) for e in alone]
    assert {e.stop for e in again[10:]} == {StopReason.ENVIRONMENT_CRASH}
    assert len(measured(Mute(), 2)) == 10  # no expert is no failure of the world


def test_an_expert_that_breaks_once_is_no_reason_to_refuse_and_one_that_always_does_is(
    chat: ChatFormat, tmp_path: Path
):
    for folder in (str(tmp_path / "asked"), ""):
        world = Stumped(folder)
        with EnvPool(world, 1) as pool:
            collector = Collector(pool, chat, Limits(context=600), 20)
            if folder:
                collector.check(world.tasks("r2-w2", "sft", 1), demonstrated=True)
                assert Path(folder).is_dir()
                continue
            with pytest.raises(BadInput, match=r"its expert does not begin task .* is not there") as refusal:
                collector.check(world.tasks("r2-w2", "sft", 1), demonstrated=True)
            assert refusal.value.where == "data.environment"


def evaluated(environment: TextEnvironment, spec: str, player: Player, chat: ChatFormat, seed: int) -> list[Episode]:
    stage = RunningStage(environment, chat, Limits(turns=8, context=600, concurrent=4))
    try:
        tasks = environment.tasks(spec, "test", 10)
        return stage.evaluate(tasks, player, Sampling(), seed, lambda *_: None)
    finally:
        stage.close()


@pytest.mark.parametrize(("environment", "spec"), [(EchoWorld(), "r3-w4"), (CorridorWorld(), "n6")])
def test_the_expert_wins_and_chance_is_a_function_of_the_seed(environment, spec: str, chat: ChatFormat):
    expert = evaluated(environment, spec, ExpertPlayer(chat), chat, 0)
    assert all(e.won and e.score == e.max_score for e in expert) and len(expert) == 10
    assert all(t.policy_version == -1 and t.action_logprobs == () for e in expert for t in e.turns)
    assert all(t.action_ids == tuple(chat.action_ids(t.action)) for e in expert for t in e.turns)
    first, again, other = (evaluated(environment, spec, RandomPlayer(chat), chat, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert {t.action for e in first for t in e.turns} <= {
        "red",
        "blue",
        "green",
        "pink",
        "grey",
        "black",
        "left",
        "right",
    }
    assert sum(e.won for e in [*first, *other]) < 15


class Dice:
    """Says "look" and notes the first random number it was given for it."""

    def __init__(self, chat: ChatFormat) -> None:
        self.ids, self.drawn = tuple(chat.action_ids("look")), list[float]()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> dict[int, Sampled]:
        self.drawn += [float(request.stream.random()) for request in requests]
        return {r.session: Sampled(self.ids, tuple(-1.0 for _ in self.ids), True) for r in requests}

    def release(self, sessions: Iterable[int]) -> None:
        pass


def test_every_turn_of_every_episode_has_random_numbers_of_its_own_and_always_these(chat: ChatFormat):
    drawn = []
    for _ in range(2):
        dice: Any = Dice(chat)
        collector = Collector(LocalPool(Stage()), chat, Limits(turns=4, context=2000, concurrent=3), 20)
        collector.collect([job("1"), job("2")], PolicyPlayer(dice, chat, Sampling(), 0))
        drawn.append(dice.drawn)
    assert drawn[0] == drawn[1] and len(set(drawn[0])) == len(drawn[0]) == 8


def test_a_player_that_is_not_answered_is_a_failure(chat: ChatFormat):
    pool = LocalPool(Stage())
    collector = Collector(pool, chat, Limits(concurrent=2), 20)
    for player in (ExpertPlayer(chat), RandomPlayer(chat)):
        (episode,) = collector.collect([job("1")], player)
        assert pool.hints_expected is isinstance(player, RandomPlayer)  # who will ask for them at every turn says so
        assert episode.stop is StopReason.ENVIRONMENT_GARBAGE and has_no_player(episode)
