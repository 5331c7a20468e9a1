"""The engine against a loop that reads the whole conversation again for every token."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine import hf as engine_module
from lit_agents.policy.engine.base import Request, Sampled
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.policy.engine.prefix_trie import PrefixTrie
from lit_agents.policy.sampling import Sampling
from lit_agents.rng import stream
from tests.policy.asking import answers
from tests.tiny import tiny_model_folder

END = 258  # <|im_end|> of the tiny tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, its end-of-turn token likely enough to be sampled."""
    path = tiny_model_folder(tmp_path_factory.mktemp("tiny"))
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0 if p.ndim == 2 else 1.0)  # sharper: what is read changes what is said
        model.get_input_embeddings().weight[END] *= 6  # in some situations very likely, in others not at all
    model.save_pretrained(path)
    return path


@pytest.fixture(params=["float32", "float64"])
def policy(folder: Path, request: pytest.FixtureRequest) -> CausalLMPolicy:
    made = CausalLMPolicy(str(folder), dtype=request.param)
    made.load()
    return made


def plain(folder: Path, policy: CausalLMPolicy) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=policy.dtype, attn_implementation="sdpa")


def engine_for(
    policy: CausalLMPolicy, sessions: int = 8, prefill_tokens: int = 4096, stragglers: float = 0.2
) -> TransformersEngine:
    engine = TransformersEngine(prefill_tokens, stragglers)
    engine.attach(policy, sessions, 256)
    return engine


def slow_token(logits_V: Tensor, sampling: Sampling, numbers: np.random.Generator) -> tuple[int, float]:
    """Walk along the distribution function to the next random number."""
    logits = [float(x) for x in logits_V.double()]
    if sampling.temperature == 0:
        return max(range(len(logits)), key=logits.__getitem__), 0.0
    top = max(logits)
    mass = [float(np.exp((x - top) / sampling.temperature)) for x in logits]
    goal, reached = numbers.random() * sum(mass), 0.0
    for token, m in enumerate(mass):
        reached += m
        if goal < reached:
            return token, float(np.log(m / sum(mass)))
    raise AssertionError


@torch.no_grad()
def slow_action(
    model: PreTrainedModel, ids: tuple[int, ...], sampling: Sampling, numbers: np.random.Generator
) -> Sampled:
    said: list[int] = []
    logprobs: list[float] = []
    while len(said) < sampling.max_tokens and END not in said:
        token, logprob = slow_token(model(torch.tensor([[*ids, *said]])).logits[0, -1], sampling, numbers)
        said.append(token)
        logprobs.append(logprob)
    return Sampled(tuple(said), tuple(logprobs), said[-1] == END)


def some(rng: random.Random, least: int, most: int) -> tuple[int, ...]:
    return tuple(rng.randrange(256) for _ in range(rng.randint(least, most)))


def conversations(seed: int) -> list[tuple[int, ...]]:
    """Six: three begin alike, as a group does."""
    rng = random.Random(seed)
    first = some(rng, 5, 30)
    return [first, first, some(rng, 3, 30), first, some(rng, 3, 30), some(rng, 1, 4)]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.6])
@pytest.mark.parametrize(("prefill_tokens", "stragglers"), [(1, 0.9), (11, 0.7), (4096, 0.0), (4096, 0.9)])
def test_actions_of_several_turns_are_those_of_a_model_that_reads_everything_again(
    folder: Path, policy: CausalLMPolicy, temperature: float, prefill_tokens: int, stragglers: float
):
    model, engine = plain(folder, policy), engine_for(policy, 8, prefill_tokens, stragglers)
    sampling, rng = Sampling(temperature=temperature, max_tokens=7), random.Random(1)
    talks = dict(zip((4, 0, 7, 1, 2, 5), conversations(0), strict=True))  # sessions with gaps, and in no order
    turns, idle, expected, finished, together = dict.fromkeys(talks, 0), list(talks), {}, [], set()
    while idle or expected:
        for s in idle:
            expected[s] = slow_action(model, talks[s], sampling, stream(3, turns[s], s))
        found = engine.generate([Request(s, talks[s], stream(3, turns[s], s)) for s in idle], sampling)
        assert len(expected) - len(found) <= stragglers * len(expected)
        together.add(tuple(sorted({turns[s] for s in expected})))
        idle = []
        for s, one in found.items():
            other = expected.pop(s)
            assert (one.ids, one.finished) == (other.ids, other.finished)
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5 if policy.dtype == torch.float32 else 1e-6)
            finished.append(one.finished)
            turns[s] += 1
            talks[s] += one.ids + some(rng, 1, 12)
            if (s, turns[s]) == (7, 2):
                engine.release([s])
                talks[s] = some(rng, 2, 20)  # its place is taken by another conversation
            idle += [s] if turns[s] < 4 else []
    assert (len({turn for turn, *more in together if more}) > 0) == (stragglers > 0), "turns overlap"
    assert len(finished) == 24 and (len(set(finished)) == 2 or temperature == 0)


@pytest.mark.parametrize(("stragglers", "passes"), [(0.0, 12 + 12 + 3), (0.25, 3 + 3 + 3 + 6 + 3 + 3)])
def test_the_last_of_a_turn_go_on_beside_the_next(policy: CausalLMPolicy, monkeypatch, stragglers: float, passes: int):
    # eight conversations of three actions of 3 tokens; but the first one of conversation 0 has 12, and the second one of 1.
    # waiting for all takes 12, 12 and 3 passes. Otherwise each turn of the others takes 3, then 0 has 3 tokens to go and 1 has
    # 6; they are waited for, and play the turns they have left
    engine = engine_for(policy, stragglers=stragglers)
    calls, forward = [], engine._forward
    monkeypatch.setattr(engine, "_forward", lambda *args: (calls.append(args), forward(*args))[1])
    monkeypatch.setattr(
        engine_module, "draw", lambda logits, sampling, rows: [[(next(s), 0.0) for s in row] for row in rows]
    )
    talks, turns, idle = {s: (1, 2, s) for s in range(8)}, dict.fromkeys(range(8), 0), list(range(8))
    said: dict[tuple[int, int], tuple[int, ...]] = {}
    while idle or engine._open:
        new = []
        for s in idle:
            long = (s, turns[s]) in ((0, 0), (1, 1))
            new.append(Request(s, talks[s], iter([7] * (11 if long else 2) + [END])))  # type: ignore[arg-type]
        found = engine.generate(new, Sampling())
        for s, action in found.items():
            said[s, turns[s]] = action.ids
            turns[s] += 1
            talks[s] += (*action.ids, 5)
        idle = [s for s in found if turns[s] < 3]
    assert len(calls) == passes
    assert {key: len(ids) for key, ids in said.items()} == {
        (s, t): 12 if (s, t) in ((0, 0), (1, 1)) else 3 for s in range(8) for t in range(3)
    }


def test_an_action_ends_with_the_end_of_turn_token_or_is_unfinished_at_its_limit(policy: CausalLMPolicy):
    engine = engine_for(policy)
    for limit in (1, 3, 40):
        engine.refresh()
        requests = [Request(s, (s + 1, 2), stream(limit, s)) for s in range(8)]
        for action in answers(engine, requests, Sampling(max_tokens=limit)):
            assert len(action.ids) == len(action.logprobs) <= limit
            assert END not in action.ids[:-1] and action.finished == (action.ids[-1] == END)
            assert action.finished or len(action.ids) == limit


def test_what_is_said_does_not_depend_on_who_else_is_asked_or_in_which_session(folder: Path):
    policy = CausalLMPolicy(str(folder), dtype="float64")
    policy.load()
    prompts, sampling = conversations(5), Sampling(max_tokens=9)
    together = answers(engine_for(policy), [Request(s, p, stream("x", s)) for s, p in enumerate(prompts)], sampling)
    for s, prompt in enumerate(prompts):
        (alone,) = answers(engine_for(policy), [Request(7 - s, prompt, stream("x", s))], sampling)
        assert alone.ids == together[s].ids
        assert alone.logprobs == pytest.approx(together[s].logprobs, abs=1e-6)


def test_equal_conversations_are_computed_once_and_known_tokens_never_again(policy: CausalLMPolicy):
    engine, sampling = engine_for(policy), Sampling(max_tokens=6)
    first = tuple(range(20))
    requests = [Request(s, first, stream("a", s)) for s in range(4)]
    said = answers(engine, requests, sampling)
    tokens = sum(len(action.ids) for action in said)
    # 20 tokens once for all four; each sampled token but an action's last one is fed back
    assert engine.cost.prompt_tokens == 80 and engine.cost.sampled_tokens == tokens
    assert engine.cost.computed_tokens == 20 + tokens - 4
    answers(
        engine, [Request(s, first + said[s].ids + (9, 9), stream("b", s)) for s in range(2)], Sampling(max_tokens=1)
    )
    # the token that was not fed back and the two new ones; again once if the two talks are still equal
    again = 3 if said[0].ids == said[1].ids else 6
    assert engine.cost.computed_tokens == 20 + tokens - 4 + again
    assert engine.cost.prompt_tokens == 80 + 6


def test_a_member_that_begins_late_reads_what_the_others_have_and_says_what_it_would_have_said(policy: CausalLMPolicy):
    engine, sampling, prompt = engine_for(policy), Sampling(max_tokens=3), tuple(range(20))
    (early,) = answers(engine, [Request(0, prompt, stream(0))], sampling)
    before = engine.cost.computed_tokens
    longer = (*prompt, *early.ids, 7)
    late = answers(
        engine,
        [Request(0, longer, stream("a")), Request(1, prompt, stream(1)), Request(2, prompt[:-1], stream(2))],
        sampling,
    )
    fresh = answers(engine_for(policy), [Request(s, prompt[: 21 - s], stream(s)) for s in (1, 2)], sampling)
    assert [found.ids for found in late[1:]] == [found.ids for found in fresh]
    for found, expected in zip(late[1:], fresh, strict=True):
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-6)
    # the last token of a known prompt is computed once more: nobody has kept what comes next
    fed = [len(action.ids) - 1 for action in late]
    assert engine.cost.computed_tokens - before <= 2 + 2 + sum(fed)


def test_an_error_on_the_way_leaves_nothing_half_computed(policy: CausalLMPolicy, monkeypatch: pytest.MonkeyPatch):
    engine, sampling, asked = engine_for(policy), Sampling(max_tokens=3), Request(0, (1, 2, 3), stream(0))
    with monkeypatch.context() as patch:
        patch.setattr(policy, "hidden", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.generate([asked], sampling)
    (found,) = answers(engine, [Request(0, (1, 2, 3), stream(0))], sampling)
    assert [found] == answers(engine_for(policy), [Request(0, (1, 2, 3), stream(0))], sampling)


@pytest.mark.parametrize("moment", range(0, 60, 7))
def test_an_interrupt_while_actions_are_under_way_leaves_nothing_of_them(
    policy: CausalLMPolicy, monkeypatch: pytest.MonkeyPatch, moment: int
):
    engine, sampling = engine_for(policy, stragglers=0.9), Sampling(max_tokens=9)
    engine.generate([Request(s, (s, 2, 3), stream(s)) for s in range(4)], sampling)
    assert engine._open
    left, new = [moment], PrefixTrie._new

    def interrupted(trie: PrefixTrie, key: tuple[int, int]) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return new(trie, key)

    with monkeypatch.context() as patch:
        patch.setattr(PrefixTrie, "_new", interrupted)
        with pytest.raises(KeyboardInterrupt):
            answers(engine, [Request(s, tuple(range(s, 30)), stream(s)) for s in range(4, 8)], Sampling(max_tokens=9))
    asked = [[Request(s, tuple(range(s, 20)), stream(s)) for s in range(8)] for _ in range(2)]
    assert answers(engine, asked[0], sampling) == answers(engine_for(policy, stragglers=0.9), asked[1], sampling)


def test_a_conversation_that_is_too_long_is_an_error_and_leaves_no_node(policy: CausalLMPolicy):
    engine, sampling = TransformersEngine(), Sampling(max_tokens=2)
    engine.attach(policy, 2, 8)
    with pytest.raises(IndexError, match="longer than 8 tokens"):
        engine.generate([Request(0, tuple(range(9)), stream(0))], sampling)
    asked = [Request(1, (0, 1, 2, 3, 4, 5, 8), stream(1)) for _ in range(2)]
    assert answers(engine, asked[:1], sampling) == answers(engine_for(policy), asked[1:], sampling)


def test_a_conversation_the_engine_knows_otherwise_is_refused_until_it_is_released(policy: CausalLMPolicy):
    engine, sampling = engine_for(policy), Sampling(max_tokens=2)
    answers(engine, [Request(0, (1, 2, 3), stream(0)), Request(1, (1, 2, 3), stream(1))], sampling)
    with pytest.raises(RuntimeError, match="conversation 0 does not continue"):
        answers(engine, [Request(0, (1, 9, 3, 4, 5, 6), stream(0))], sampling)
    with pytest.raises(RuntimeError, match="conversation 1 does not continue"):
        answers(engine, [Request(1, (1, 2, 3), stream(0))], sampling)
    engine.release([0])
    (found,) = answers(engine, [Request(0, (1, 9, 3, 4, 5, 6), stream(0))], sampling)
    (expected,) = answers(engine_for(policy), [Request(0, (1, 9, 3, 4, 5, 6), stream(0))], sampling)
    assert found == expected


def test_a_conversation_goes_on_after_its_middle_was_dropped_and_its_beginning_is_not_read_again(
    policy: CausalLMPolicy,
):
    first, sampling = tuple(range(20)), Sampling(max_tokens=4)
    engine = engine_for(policy)
    (said,) = answers(engine, [Request(0, first, stream(0))], sampling)
    (more,) = answers(engine, [Request(0, (*first, *said.ids, *range(50, 90)), stream(1))], sampling)
    kept = (*first, *said.ids)
    slid = (*kept, *range(60, 90), *more.ids, 7)
    engine.rewind(0, len(kept))
    computed, asked = engine.cost.computed_tokens, engine.cost.prompt_tokens
    (found,) = answers(engine, [Request(0, slid, stream(2))], sampling)
    assert engine.cost.computed_tokens - computed == len(slid) - len(kept) + len(found.ids) - 1
    assert engine.cost.prompt_tokens - asked == len(slid) - len(kept)
    (expected,) = answers(engine_for(policy), [Request(0, slid, stream(2))], sampling)
    assert found.ids == expected.ids and found.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    with pytest.raises(RuntimeError, match="conversation 0 does not continue"):
        answers(engine, [Request(0, (*kept, 1, 2), stream(3))], sampling)


def test_an_action_under_way_is_not_asked_for_again_and_ends_with_its_conversation(policy: CausalLMPolicy):
    engine, sampling = engine_for(policy, stragglers=0.9), Sampling(max_tokens=9)
    said = engine.generate([Request(s, (s, 2, 3), stream(s)) for s in range(4)], sampling)
    (late, *_) = [s for s in range(4) if s not in said]
    with pytest.raises(RuntimeError, match=f"conversation {late} has an action under way"):
        engine.generate([Request(late, (*engine._trie.ids(late), 1), stream(late))], sampling)
    with pytest.raises(RuntimeError, match="sampling changes"):
        engine.generate([], Sampling(max_tokens=8))
    with pytest.raises(RuntimeError, match="two actions at once"):
        engine.generate([Request(5, (1, 2), stream(0)), Request(5, (1, 2), stream(1))], sampling)
    engine.release([late])
    (found,) = engine_for(policy).generate([Request(late, (9, 9), stream(5))], sampling).values()
    engine.release(range(4))
    assert engine.generate([], sampling) == {}
    assert engine.generate([Request(late, (9, 9), stream(5))], sampling) == {late: found}


@pytest.mark.parametrize("setting", [{"stragglers": -0.1}, {"stragglers": 1.0}, {"prefill_tokens": 0}])
def test_settings_of_the_engine_that_cannot_be_are_refused(setting: dict[str, float]):
    with pytest.raises(BadInput, match=rf"data\.engine\.{next(iter(setting))}"):
        TransformersEngine(**setting)  # type: ignore[arg-type]


def test_after_new_weights_nothing_computed_with_the_old_ones_is_left(policy: CausalLMPolicy):
    engine, sampling = engine_for(policy), Sampling(max_tokens=4)
    asked = [Request(0, tuple(range(9)), stream(0))]
    answers(engine, asked, sampling)
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(0.7)
    engine.refresh()
    found = answers(engine, [Request(0, tuple(range(9)), stream(1))], sampling)
    assert found == answers(engine_for(policy), [Request(0, tuple(range(9)), stream(1))], sampling)


def test_what_a_slot_held_before_never_reaches_the_next_conversation(policy: CausalLMPolicy):
    prompts, sampling = conversations(6), Sampling(max_tokens=9)
    used, fresh = engine_for(policy), engine_for(policy)
    answers(used, [Request(s, tuple(range(200)), stream(s)) for s in range(8)], Sampling(max_tokens=3))
    used.release(range(8))
    for first in range(2):
        requests = [[Request(s, p, stream(first, s)) for s, p in enumerate(prompts)] for _ in range(2)]
        assert answers(used, requests[0], sampling) == answers(fresh, requests[1], sampling)
        used.refresh()
        fresh.refresh()


def test_sampled_log_probabilities_are_those_the_trainer_computes(policy: CausalLMPolicy):
    from lit_agents.algorithm.token_tree import token_tree
    from tests.rollout.handmade import episode

    engine = engine_for(policy)
    requests = [Request(s, p, stream("y", s)) for s, p in enumerate(conversations(8))]
    said = answers(engine, requests, Sampling(temperature=0.8, max_tokens=8))
    tree = token_tree([episode([(r.ids, a.ids)]) for r, a in zip(requests, said, strict=True)])
    with torch.no_grad():
        scores = policy.score(tree, 0.8)
    for row, action in zip(scores.logprobs_BA.tolist(), said, strict=True):
        assert row[: len(action.ids)] == pytest.approx(action.logprobs, abs=1e-5)
