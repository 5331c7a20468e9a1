"""Models that cannot take token trees are found out and computed the plain way, with the same results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.errors import BadInput
from lit_agents.policy import attention
from lit_agents.policy.attention import FlexTreeAttention, TreeAttention
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.base import Request
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.policy.loading import load_model
from lit_agents.policy.sampling import Sampling
from lit_agents.rng import stream
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


def with_large_biases(folder: Path) -> Path:
    """Biases of queries and keys as large as Qwen2.5 has them."""
    weights = load_file(folder / "model.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, weight in weights.items():
            if name.endswith(("q_proj.bias", "k_proj.bias")):
                weights[name] = torch.randn_like(weight) * 20
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_model_with_large_biases_takes_trees_in_bfloat16_and_keeps_its_weights(tmp_path, capsys):
    folder = with_large_biases(folder_of(tmp_path, "qwen2", num_hidden_layers=4))
    model, takes_trees = load_model(folder, "qwen", torch.bfloat16, True)
    assert takes_trees and "token trees" not in capsys.readouterr().err
    stored = load_file(folder / "model.safetensors")
    for name, p in model.named_parameters():
        assert p.dtype == torch.bfloat16 and torch.equal(p, stored[name].bfloat16())


@pytest.mark.parametrize("kind", CAN)
def test_in_bfloat16_a_model_that_can_take_trees_is_not_turned_away(kind, tmp_path, capsys):
    assert load_model(folder_of(tmp_path, kind, **CAN[kind]), kind, torch.bfloat16, True)[1]
    assert "token trees" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", CANNOT)
def test_in_bfloat16_a_model_that_cannot_take_trees_is_still_found_out(kind, tmp_path, capsys):
    settings, why = CANNOT[kind]
    assert not load_model(folder_of(tmp_path, kind, **settings), kind, torch.bfloat16, True)[1]
    assert why in capsys.readouterr().err


def test_in_bfloat16_a_computation_that_is_wrong_by_less_than_rounding_is_found_out(tmp_path, monkeypatch, capsys):
    plain = attention.masked_attention
    monkeypatch.setattr(attention, "masked_attention", lambda q, k, v, bias, scale: plain(q, k, v, bias, scale * 1.01))
    assert not load_model(folder_of(tmp_path, "llama"), "llama", torch.bfloat16, True)[1]
    assert "attention differs" in capsys.readouterr().err


def changed_folder(path: Path, change) -> Path:
    """A sound folder with other tensors."""
    folder = folder_of(path, "llama", tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("token_trees", [True, False])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda w: w.pop("lm_head.weight"), r"no tensor for lm_head\.weight"),
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), r"no tensor for model\.layers\.1\.mlp\.up_proj\.weight"),
        (lambda w: w.update({"score.weight": torch.zeros(1, 32)}), r"none of this model's: score\.weight"),
        (
            lambda w: w.update({"model.norm.weight": torch.ones(31)}),
            r"another shape: model\.norm\.weight \[31\] for \[32\]",
        ),
    ],
)
def test_a_folder_whose_tensors_are_not_those_of_the_model_is_refused_by_their_names(
    change, why, token_trees, tmp_path, capsys
):
    folder = changed_folder(tmp_path, change)
    with pytest.raises(BadInput, match=why):
        loaded(folder, token_trees=token_trees)
    assert "cannot take token trees" not in capsys.readouterr().err


def test_a_tied_head_needs_no_tensor_of_its_own(tmp_path):
    folder = folder_of(tmp_path, "llama", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert loaded(folder).takes_trees


def test_weights_that_are_not_finite_are_named_when_they_are_loaded(tmp_path):
    folder = changed_folder(tmp_path, lambda w: w["model.layers.1.mlp.up_proj.weight"].fill_(float("nan")))
    with pytest.raises(
        BadInput, match=r"non-finite logits; the weight \S+\.1\.mlp\.up_proj\.weight is itself not finite"
    ):
        loaded(folder)


LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 10000.0}
LIMITS = {
    "positions": ("llama", {}, 256, "256 positions"),
    "learned positions": ("gpt2", {}, 256, "256 positions"),
    "a stretched rotary embedding": ("llama", {"rope_parameters": YARN}, 1024, "1024 positions"),
    "a sliding window": ("mistral", {"sliding_window": 64}, 64, "sliding window of 64"),
    "a sliding window in some layers": (
        "qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1}, 64, "sliding window of 64",
    ),
    "a sliding window that is off": ("qwen2", {"use_sliding_window": False, "sliding_window": 64}, 256, "256 positions"),
    "dynamic scaling": (
        "llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}}, 256, "beyond 256",
    ),
    "longrope": (
        "phi3", {"rope_parameters": LONG | {"rope_theta": 10000.0}, "original_max_position_embeddings": 64}, 64, "beyond 64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LIMITS)
def test_a_context_beyond_what_the_model_can_take_is_refused_before_weights_are_loaded(case, tmp_path):
    kind, settings, most, why = LIMITS[case]
    AutoConfig.for_model(kind, **{**SMALL, **settings}).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    policy = CausalLMPolicy(str(tmp_path))
    policy.check_context(most)
    with pytest.raises(BadInput, match=rf"data\.limits\.context: {most + 1} tokens.*{why}.*Lower it to {most}"):
        policy.check_context(most + 1)


def test_without_token_trees_a_sliding_window_is_no_limit(tmp_path):
    AutoConfig.for_model("mistral", **{**SMALL, "sliding_window": 64}).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    CausalLMPolicy(str(tmp_path), token_trees=False).check_context(256)


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
