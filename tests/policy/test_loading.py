"""Models that cannot take token trees are found out and computed the plain way, with the same results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

from lit_agents.errors import BadInput
from lit_agents.policy.attention import FlexTreeAttention, TreeAttention
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.base import Request
from lit_agents.policy.engine.transformers import TransformersEngine
from lit_agents.policy.sampling import Sampling, stream
from lit_agents.rollout.trie import token_tree
from tests.policy.asking import answers
from tests.policy.test_causal_lm import naive, padded, shared_beginnings
from tests.rollout.handmade import acted, episode
from tests.tiny import tiny_tokenizer

SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None,
}  # fmt: skip
CANNOT = {
    "mamba": ({"state_size": 8}, "does not support an attention implementation"),
    "bloom": ({"n_head": 4, "n_layer": 2}, "another conversation is seen"),
    "gemma2": ({"head_dim": 8, "final_logit_softcapping": None}, "caps scores"),
    "mistral": ({"sliding_window": 8}, "sliding window is 8"),
}
CAN = {"llama": {}, "mixtral": {"num_local_experts": 2}, "smollm3": {}, "mistral": {"sliding_window": 64}}


def folder_of(path: Path, kind: str, **settings: object) -> Path:
    tokenizer = tiny_tokenizer()
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    config = AutoConfig.for_model(kind, **{**SMALL, **ids, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def loaded(folder: Path, **settings: object) -> CausalLMPolicy:
    policy = CausalLMPolicy(str(folder), **settings)  # type: ignore[arg-type]
    policy.load()
    return policy


@pytest.mark.parametrize("kind", CANNOT)
def test_a_model_that_cannot_take_trees_says_so_and_computes_every_conversation_by_itself(kind, tmp_path, capsys):
    settings, why = CANNOT[kind]
    policy = loaded(folder_of(tmp_path, kind, **settings))
    assert not policy.takes_trees
    said = capsys.readouterr().err.rpartition("cannot take token trees")[2]
    assert why in said
    episodes = shared_beginnings(2)
    tree = token_tree(episodes)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        scores = policy.score(tree, 1.0)
        for b, e in enumerate(episodes):
            wanted = [
                float(model(torch.tensor([before])).logits[0, -1].log_softmax(-1)[token]) for before, token in acted(e)
            ]
            assert scores.logprobs_BA[b][: len(wanted)].tolist() == pytest.approx(wanted, abs=1e-4)
    talks = {tuple(talk.ids) for e in episodes for talk in e.conversations}
    whole = [ids for ids in talks if not any(other != ids and other[: len(ids)] == ids for other in talks)]
    assert policy.computed(tree) == sum(map(len, whole))


@pytest.mark.parametrize("kind", CAN)
def test_a_model_that_can_take_trees_is_not_turned_away(kind, tmp_path, capsys):
    policy = loaded(folder_of(tmp_path, kind, **CAN[kind]))
    assert policy.takes_trees and "token trees" not in capsys.readouterr().err
    tree = token_tree(shared_beginnings(2))
    assert policy.computed(tree) == len(tree.ids_S)


def test_without_trees_scores_gradients_and_actions_are_those_with_them(tmp_path):
    folder = folder_of(tmp_path, "llama")
    with_trees, without = loaded(folder, dtype="float64"), loaded(folder, dtype="float64", token_trees=False)
    tree = token_tree(shared_beginnings(5))
    scores = [policy.score(tree, 0.8) for policy in (with_trees, without)]
    for one, other in zip(*scores, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for score in scores:
        score.logprobs_BA.sum().backward()
    for name, p in with_trees.trainable.items():
        torch.testing.assert_close(p.grad, without.trainable[name].grad, rtol=1e-4, atol=1e-6)
    said = []
    for policy in (with_trees, without):
        engine = TransformersEngine(stragglers=0.9)
        engine.attach(policy, 4, 64)
        asked = [Request(s, (5, 6, 7 + s // 2), stream(s)) for s in range(4)]
        first = answers(engine, asked, Sampling(max_tokens=5))
        asked = [Request(s, (*asked[s].ids, *first[s].ids, 9, 8), stream(9, s)) for s in range(4)]
        said.append(first + answers(engine, asked, Sampling(max_tokens=5)))
    assert [s.ids for s in said[0]] == [s.ids for s in said[1]]
    for one, other in zip(*said, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-6)


def test_a_conversation_longer_than_the_sliding_window_is_refused(tmp_path):
    policy = loaded(folder_of(tmp_path, "mistral", sliding_window=32))
    policy.score(token_tree([episode([(list(range(30)), [5, 6])])]), 1.0)
    with pytest.raises(BadInput, match=r"data\.limits\.context"):
        policy.score(token_tree([episode([(list(range(31)), [5, 6])])]), 1.0)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_sees_what_the_blocks_see():
    """Forward alone: torch has no backward of it on a CPU."""
    tree = token_tree(shared_beginnings(7))
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, len(tree.ids_S), 8, dtype=torch.float64) for heads in (4, 2, 2))
    blocks, flex = TreeAttention(tree, 2, torch.float64, block=16), FlexTreeAttention(tree, compiled=False)
    torch.testing.assert_close(flex(0, query, key, value, 0.3), blocks(0, query, key, value, 0.3), rtol=1e-9, atol=1e-9)
    rotated = flex(0, query.float(), key.float(), value.bfloat16(), 0.3)  # as they come where autocast is on
    torch.testing.assert_close(
        rotated, flex(0, query.bfloat16(), key.bfloat16(), value.bfloat16(), 0.3), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    ("kind", "settings"), [("granite", {"logits_scaling": 8.0}), ("gemma2", {"head_dim": 8}), ("cohere2", {})]
)
def test_a_model_whose_logits_are_not_those_of_its_head_is_refused(kind, settings, tmp_path):
    folder = folder_of(tmp_path, kind, **settings)
    for token_trees in (True, False):
        with pytest.raises(BadInput, match="a cap or a scale"):
            loaded(folder, token_trees=token_trees)


@pytest.mark.parametrize("token_trees", [True, False])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gpt2", {"num_key_value_heads": 4, "resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3}),
        ("opt", {"num_key_value_heads": 4, "dropout": 0.3, "layerdrop": 0.3, "ffn_dim": 48, "word_embed_proj_dim": 32}),
        ("phi3", {"resid_pdrop": 0.3}),
        ("llama", {"attention_dropout": 0.5}),
    ],
)
def test_a_model_with_dropout_is_one_function_in_sampling_and_in_training(kind, settings, token_trees, tmp_path):
    policy = loaded(folder_of(tmp_path, kind, **settings), token_trees=token_trees)
    assert policy.takes_trees == token_trees and policy.hf.training
    tree = token_tree(shared_beginnings(4))
    with torch.no_grad():
        one, other = (policy.score(tree, 1.0).logprobs_BA for _ in range(2))
        policy.eval()
        assert torch.equal(one, other) and torch.equal(one, policy.score(tree, 1.0).logprobs_BA)


def test_a_model_with_noise_of_its_own_in_training_is_refused(tmp_path, monkeypatch):
    plain = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: plain(self, x * 1.01 if self.training else x))
    with pytest.raises(BadInput, match="otherwise in training than in sampling"):
        loaded(folder_of(tmp_path, "llama"))


def test_the_plain_way_agrees_with_one_conversation_at_a_time(tmp_path):
    policy = loaded(folder_of(tmp_path, "llama"), dtype="float64", token_trees=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    episodes = shared_beginnings(3)
    with torch.no_grad():
        scores = policy.score(token_tree(episodes), 0.9)
        torch.testing.assert_close(
            scores.logprobs_BA, padded(naive(model, episodes, 0.9)[0], scores.logprobs_BA), rtol=1e-5, atol=1e-6
        )
