"""The engine against a loop that reads the whole conversation again for every token; and how a token is drawn."""

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
from lit_agents.policy.engine.base import Request, Sampled
from lit_agents.policy.engine.transformers import TransformersEngine
from lit_agents.policy.sampling import Sampling, draw, log_distribution, stream
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


def engine_for(policy: CausalLMPolicy, sessions: int = 8, prefill_tokens: int = 4096) -> TransformersEngine:
    engine = TransformersEngine(prefill_tokens)
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
@pytest.mark.parametrize("prefill_tokens", [1, 11, 4096])
def test_actions_of_several_turns_are_those_of_a_model_that_reads_everything_again(
    folder: Path, policy: CausalLMPolicy, temperature: float, prefill_tokens: int
):
    model, engine = plain(folder, policy), engine_for(policy, prefill_tokens=prefill_tokens)
    sampling, rng = Sampling(temperature=temperature, max_tokens=7), random.Random(1)
    talks = dict(enumerate(conversations(0)))
    talks = {session: talks[i] for i, session in enumerate((4, 0, 7, 1, 2, 5))}  # with gaps, and in no order
    finished = []
    for turn in range(3):
        requests = [Request(s, ids, stream(3, turn, s)) for s, ids in talks.items()]
        expected = [slow_action(model, ids, sampling, stream(3, turn, s)) for s, ids in talks.items()]
        found = engine.generate(requests, sampling)
        for one, other in zip(found, expected, strict=True):
            assert (one.ids, one.finished) == (other.ids, other.finished)
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5 if policy.dtype == torch.float32 else 1e-6)
        finished += [action.finished for action in found]
        for s, action in zip(list(talks), found, strict=True):
            talks[s] += action.ids + some(rng, 1, 12)
        gone = next(iter(talks))
        del talks[gone]
        engine.release([gone])
        fresh = some(rng, 2, 20)  # its place is taken by another conversation
        talks[gone] = fresh
    assert len(set(finished)) == 2 or temperature == 0


def test_an_action_ends_with_the_end_of_turn_token_or_is_unfinished_at_its_limit(policy: CausalLMPolicy):
    engine = engine_for(policy)
    for limit in (1, 3, 40):
        engine.refresh()
        requests = [Request(s, (s + 1, 2), stream(limit, s)) for s in range(8)]
        for action in engine.generate(requests, Sampling(max_tokens=limit)):
            assert len(action.ids) == len(action.logprobs) <= limit
            assert END not in action.ids[:-1] and action.finished == (action.ids[-1] == END)
            assert action.finished or len(action.ids) == limit


def test_what_is_said_does_not_depend_on_who_else_is_asked_or_in_which_session(folder: Path):
    policy = CausalLMPolicy(str(folder), dtype="float64")
    policy.load()
    prompts, sampling = conversations(5), Sampling(max_tokens=9)
    together = engine_for(policy).generate([Request(s, p, stream("x", s)) for s, p in enumerate(prompts)], sampling)
    for s, prompt in enumerate(prompts):
        (alone,) = engine_for(policy).generate([Request(7 - s, prompt, stream("x", s))], sampling)
        assert alone.ids == together[s].ids
        assert alone.logprobs == pytest.approx(together[s].logprobs, abs=1e-6)


def test_equal_conversations_are_computed_once_and_known_tokens_never_again(policy: CausalLMPolicy):
    engine, sampling = engine_for(policy), Sampling(max_tokens=6)
    first = tuple(range(20))
    requests = [Request(s, first, stream("a", s)) for s in range(4)]
    said = engine.generate(requests, sampling)
    tokens = sum(len(action.ids) for action in said)
    # 20 tokens once for all four; each sampled token but an action's last one is fed back
    assert engine.cost.prompt_tokens == 80 and engine.cost.sampled_tokens == tokens
    assert engine.cost.computed_tokens == 20 + tokens - 4
    engine.generate(
        [Request(s, first + said[s].ids + (9, 9), stream("b", s)) for s in range(2)], Sampling(max_tokens=1)
    )
    # the token that was not fed back and the two new ones; again once if the two talks are still equal
    again = 3 if said[0].ids == said[1].ids else 6
    assert engine.cost.computed_tokens == 20 + tokens - 4 + again
    assert engine.cost.prompt_tokens == 80 + 6


def test_a_member_that_begins_late_reads_what_the_others_have_and_says_what_it_would_have_said(policy: CausalLMPolicy):
    engine, sampling, prompt = engine_for(policy), Sampling(max_tokens=3), tuple(range(20))
    (early,) = engine.generate([Request(0, prompt, stream(0))], sampling)
    before = engine.cost.computed_tokens
    longer = (*prompt, *early.ids, 7)
    late = engine.generate(
        [Request(0, longer, stream("a")), Request(1, prompt, stream(1)), Request(2, prompt[:-1], stream(2))], sampling
    )
    fresh = engine_for(policy).generate([Request(s, prompt[: 21 - s], stream(s)) for s in (1, 2)], sampling)
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
    (found,) = engine.generate([Request(0, (1, 2, 3), stream(0))], sampling)
    assert [found] == engine_for(policy).generate([Request(0, (1, 2, 3), stream(0))], sampling)


def test_a_conversation_the_engine_knows_otherwise_is_refused_until_it_is_released(policy: CausalLMPolicy):
    engine, sampling = engine_for(policy), Sampling(max_tokens=2)
    engine.generate([Request(0, (1, 2, 3), stream(0)), Request(1, (1, 2, 3), stream(1))], sampling)
    with pytest.raises(RuntimeError, match="conversation 0 does not continue"):
        engine.generate([Request(0, (1, 9, 3, 4, 5, 6), stream(0))], sampling)
    with pytest.raises(RuntimeError, match="conversation 1 does not continue"):
        engine.generate([Request(1, (1, 2, 3), stream(0))], sampling)
    engine.release([0])
    (found,) = engine.generate([Request(0, (1, 9, 3, 4, 5, 6), stream(0))], sampling)
    (expected,) = engine_for(policy).generate([Request(0, (1, 9, 3, 4, 5, 6), stream(0))], sampling)
    assert found == expected


def test_after_new_weights_nothing_computed_with_the_old_ones_is_left(policy: CausalLMPolicy):
    engine, sampling = engine_for(policy), Sampling(max_tokens=4)
    asked = [Request(0, tuple(range(9)), stream(0))]
    engine.generate(asked, sampling)
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(0.7)
    engine.refresh()
    found = engine.generate([Request(0, tuple(range(9)), stream(1))], sampling)
    assert found == engine_for(policy).generate([Request(0, tuple(range(9)), stream(1))], sampling)


def test_what_a_slot_held_before_never_reaches_the_next_conversation(policy: CausalLMPolicy):
    prompts, sampling = conversations(6), Sampling(max_tokens=9)
    used, fresh = engine_for(policy), engine_for(policy)
    used.generate([Request(s, tuple(range(200)), stream(s)) for s in range(8)], Sampling(max_tokens=3))
    used.release(range(8))
    for first in range(2):
        requests = [[Request(s, p, stream(first, s)) for s, p in enumerate(prompts)] for _ in range(2)]
        assert used.generate(requests[0], sampling) == fresh.generate(requests[1], sampling)
        used.refresh()
        fresh.refresh()


def test_sampled_log_probabilities_are_those_the_trainer_computes(policy: CausalLMPolicy):
    from lit_agents.rollout.trie import token_tree
    from tests.rollout.handmade import episode

    engine = engine_for(policy)
    requests = [Request(s, p, stream("y", s)) for s, p in enumerate(conversations(8))]
    said = engine.generate(requests, Sampling(temperature=0.8, max_tokens=8))
    tree = token_tree([episode([(r.ids, a.ids)]) for r, a in zip(requests, said, strict=True)])
    with torch.no_grad():
        scores = policy.score(tree, 0.8)
    for row, action in zip(scores.logprobs_BA.tolist(), said, strict=True):
        assert row[: len(action.ids)] == pytest.approx(action.logprobs, abs=1e-5)


# drawing


class Numbers:
    """A stream that gives what it is told to."""

    def __init__(self, *values: float) -> None:
        self.values = iter(values)

    def random(self) -> float:
        return next(self.values)


def drawn(logits: list[float], sampling: Sampling, *uniforms: float) -> tuple[list[int], list[float]]:
    (pairs,) = draw(torch.tensor([logits]), sampling, [[Numbers(u) for u in uniforms]])  # type: ignore[misc]
    return [token for token, _ in pairs], [score for _, score in pairs]


def test_streams_that_share_a_row_draw_what_they_would_draw_alone():
    torch.manual_seed(0)
    logits = torch.randn(3, 7)
    together = draw(logits, Sampling(), [[stream(r, m) for m in range(r + 1)] for r in range(3)])
    alone = [[draw(logits[r : r + 1], Sampling(), [[stream(r, m)]])[0][0] for m in range(r + 1)] for r in range(3)]
    assert together == alone
    assert draw(logits, Sampling(temperature=0), [[stream(0)] * 2] * 3) == [
        [(int(row.argmax()), 0.0)] * 2 for row in logits
    ]


def test_a_token_is_drawn_where_the_distribution_function_crosses_the_random_number():
    probabilities = [0.125, 0.25, 0.0, 0.5, 0.125]  # reached: .125 .375 .375 .875 1; exact in binary
    logits = [float(np.log(p)) if p else float("-inf") for p in probabilities]
    uniforms = (0.0, 0.124, 0.126, 0.374, 0.376, 0.874, 0.876, 1 - 2**-53)
    tokens, logprobs = drawn(logits, Sampling(), *uniforms)
    assert tokens == [0, 0, 1, 1, 3, 3, 4, 4]
    assert logprobs == pytest.approx([float(np.log(probabilities[t])) for t in tokens], abs=1e-6)


def test_a_regular_grid_of_random_numbers_draws_each_token_as_often_as_it_is_likely():
    probabilities = [0.05, 0.2, 0.45, 0.3]
    grid = [(i + 0.5) / 1000 for i in range(1000)]
    tokens, _ = drawn([float(np.log(p)) for p in probabilities], Sampling(), *grid)
    assert [tokens.count(t) for t in range(4)] == [50, 200, 450, 300]


def test_a_token_of_probability_0_is_never_drawn():
    logits = [float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]
    tokens, logprobs = drawn(logits, Sampling(), 0.0, 1e-12, 0.49, 0.51, 1 - 2**-53)
    assert tokens == [1, 1, 1, 3, 3] and logprobs == pytest.approx([float(np.log(0.5))] * 5)


def test_rare_tokens_keep_their_share():
    # a token of 1/2, ten of 1e-8, one of 1/2: next to 1/2 a running sum in float32 moves in steps of 6e-8
    logits_V = torch.tensor([0.5, *[1e-8] * 10, 0.5]).log()
    uniforms = [0.5 + k * 1e-9 for k in range(-250, 250)]
    tokens, _ = drawn(logits_V.tolist(), Sampling(), *uniforms)
    assert tokens == sorted(tokens) and set(tokens) == set(range(12))
    assert all(9 <= tokens.count(t) <= 11 for t in range(1, 11))


def test_greedy_takes_the_likeliest_and_uses_no_random_number():
    (pairs,) = draw(torch.tensor([[0.0, 3.0, 1.0]]), Sampling(temperature=0), [[Numbers()]])  # type: ignore[list-item]
    assert pairs == [(1, 0.0)]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_p": 0.49}, [3]),  # the likeliest alone has 0.5
        ({"top_p": 0.51}, [1, 3]),  # the token that crosses it is kept
        ({"top_p": 0.79}, [1, 3]),  # 0.5 + 0.3
        ({"top_p": 0.81}, [0, 1, 3]),
        ({"top_p": 0.01}, [3]),
        ({"top_k": 1}, [3]),
        ({"top_k": 3}, [0, 1, 3]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_k": 1, "top_p": 0.9}, [3]),
        ({"top_k": 3, "top_p": 0.6}, [1, 3]),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_truncation_keeps_the_likeliest_and_renormalises_them(settings: dict[str, float], kept: list[int]):
    probabilities = [0.15, 0.3, 0.05, 0.5]
    logits_BV = torch.tensor([probabilities], dtype=torch.float64).log() + 3  # a constant changes nothing
    found = log_distribution(logits_BV, Sampling(**settings)).exp()[0].tolist()  # type: ignore[arg-type]
    total = sum(probabilities[t] for t in kept)
    assert found == pytest.approx([p / total if t in kept else 0 for t, p in enumerate(probabilities)], abs=1e-12)
    grid = [(i + 0.5) / 600 for i in range(600)]
    tokens, logprobs = drawn(logits_BV[0].tolist(), Sampling(**settings), *grid)  # type: ignore[arg-type]
    assert set(tokens) == set(kept)
    assert logprobs == pytest.approx([float(np.log(probabilities[t] / total)) for t in tokens], abs=1e-6)


def test_a_stream_depends_on_its_key_alone():
    def numbers(*key: object) -> list[float]:
        return list(stream(*key).random(4))

    first = stream(1, "a", 2)
    other = stream(1, "a", 3)
    other.random(100)
    assert list(first.random(4)) == numbers(1, "a", 2)
    keys = [(1, "a", 2), (1, "a", 3), (2, "a", 1), (1, "a"), ("1a", 2), (1, "a2"), (12, "a"), ()]
    assert len({tuple(numbers(*key)) for key in keys}) == len(keys)
    assert numbers(1, "a", 2)[0] == pytest.approx(0.4, abs=0.6)


@pytest.mark.parametrize(
    "settings", [{"temperature": -0.1}, {"max_tokens": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}]
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, float]):
    with pytest.raises(BadInput, match=f"sampling.{next(iter(settings))}"):
        Sampling(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 5}])
def test_training_with_truncated_or_greedy_actions_is_refused(settings: dict[str, float]):
    with pytest.raises(BadInput, match=r"data\.sampling"):
        Sampling(**settings).check_trainable("data.sampling")  # type: ignore[arg-type]
    Sampling(temperature=0.7).check_trainable("data.sampling")


def test_a_random_number_rounded_up_to_the_total_still_draws_a_token_that_was_kept():
    # 1.0 is what a product just below the total may round to
    tokens, scores = drawn([3.0, 2.0, 1.0, 0.0, -1.0], Sampling(top_k=2), 1.0, 1.0, 1.0)
    assert tokens == [1, 1, 1] and all(score > -2 for score in scores)
