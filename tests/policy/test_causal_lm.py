"""The policy on token trees against the plain padded forward of the same model, one conversation at a time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.errors import BadInput
from lit_agents.policy import causal_lm
from lit_agents.policy import logprobs as lm_head
from lit_agents.policy.attention import TreeAttention
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from lit_agents.types import Episode
from tests.rollout.handmade import acted, episode
from tests.tiny import tiny_model_folder, tiny_tokenizer

MODELS = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": False}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"tie_word_embeddings": False, "head_dim": 12}),
}


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The norms of transformers compute in float32 whatever they are given, which would leave 7 digits of 16."""

    def forward(self: torch.nn.Module, x: Tensor) -> Tensor:
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * exact.to(x.dtype)

    for norm in (LlamaRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm):
        monkeypatch.setattr(norm, "forward", forward)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models with grouped queries: 4 heads on 2 keys, three layers, sharp enough that attention matters."""
    out = {}
    for name, (config, model, changes) in MODELS.items():
        out[name] = tmp_path_factory.mktemp(name)
        tokenizer = tiny_tokenizer()
        settings = {
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2,
            "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        }  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model(config(**(settings | changes))).save_pretrained(out[name])
        tokenizer.save_pretrained(out[name])
    return out


def policy_of(folder: Path, **settings: object) -> CausalLMPolicy:
    policy = CausalLMPolicy(str(folder), **({"dtype": "float64"} | settings))  # type: ignore[arg-type]
    policy.load()
    return policy


def plain_model(folder: Path) -> PreTrainedModel:
    """With sdpa, because the eager attention of transformers takes its softmax in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="sdpa")


def shared_beginnings(seed: int, episodes: int = 6) -> list[Episode]:
    """Groups whose members begin alike for a while, of tokens from the whole vocabulary."""
    rng = random.Random(seed)

    def some(least: int, most: int) -> list[int]:
        return [rng.randrange(259) for _ in range(rng.randint(least, most))]

    firsts = [(some(6, 12), some(1, 3)) for _ in range(2)]
    made = []
    for member in range(episodes):
        seen, said = firsts[member % 2]
        turns = [(seen, said if rng.random() < 0.5 else some(1, 4))]
        turns += [(some(2, 5), some(1, 4)) for _ in range(rng.randrange(5))]
        window = [1, 1, 2, 2, 4][: len(turns)] if member % 3 else []  # for some, turns drop out of sight
        made.append(episode(turns, member=member, window=window))
    return [*made, made[0]]


def naive(model: PreTrainedModel, episodes: list[Episode], temperature: float) -> tuple[list[Tensor], list[Tensor]]:
    """Log-probabilities and entropies of action tokens, one at a time after all that was in sight."""
    logprobs, entropies = [], []
    for e in episodes:
        scores = []
        for before, token in acted(e):
            logits_V = model(torch.tensor([before])).logits[0, -1] / temperature
            assert logits_V.dtype == torch.float64
            logp_V = torch.log_softmax(logits_V, dim=-1)
            scores.append((logp_V[token], -sum(p * p.log() for p in logp_V.exp()).detach()))
        logprobs.append(torch.stack([logprob for logprob, _ in scores]))
        entropies.append(torch.stack([entropy for _, entropy in scores]))
    return logprobs, entropies


def padded(rows: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack([F.pad(row, (0, like.shape[1] - len(row))) for row in rows])


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-9 of the largest entry."""
    scale = max(float(expected.abs().max()), 1e-3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * scale)


@pytest.mark.parametrize("block", [1, 5, 16, 128])
@pytest.mark.parametrize("name", MODELS)
def test_scores_and_gradients_on_a_tree_are_those_of_the_plain_model(folders, monkeypatch, name: str, block: int):
    monkeypatch.setattr(causal_lm, "tree_attention", lambda *args: TreeAttention(*args, block=block))
    policy, model = policy_of(folders[name]), plain_model(folders[name])
    episodes = shared_beginnings(block)
    tree = token_tree(episodes)
    assert 16 < len(tree.ids_S) < tree.tokens
    scores = policy.score(tree, 0.7)
    logprobs, entropies = naive(model, episodes, 0.7)
    assert_same(scores.logprobs_BA.detach(), padded(logprobs, scores.logprobs_BA).detach())
    assert_same(scores.entropy_BA, padded(entropies, scores.entropy_BA))
    weights_BA = torch.randn(scores.logprobs_BA.shape, generator=torch.Generator().manual_seed(1)).double()
    (weights_BA * scores.logprobs_BA).sum().backward()
    (weights_BA * padded(logprobs, weights_BA)).sum().backward()
    expected = {f"model.{n}": p.grad for n, p in model.named_parameters()}
    assert set(policy.trainable) == set(expected)
    for n, p in policy.trainable.items():
        assert p.grad is not None and p.grad.abs().max() > 0, n
        assert_same(p.grad, expected[n])


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_scores_and_gradients_do_not_depend_on_how_many_logits_are_held_at_once(folders, monkeypatch, lora):
    policy, tree = policy_of(folders["llama"], lora=lora), token_tree(shared_beginnings(2))
    found, gradients, held = [], [], []
    whole = lm_head._scored
    for rows in (512, 4):
        monkeypatch.setattr(lm_head, "ROWS", rows)
        monkeypatch.setattr(lm_head, "_scored", lambda f, h, t: (held.append(len(h)), whole(f, h, t))[1])
        scores = policy.score(tree, 0.7)
        (
            scores.logprobs_BA * torch.linspace(-1, 1, scores.logprobs_BA.numel()).view_as(scores.logprobs_BA)
        ).sum().backward()
        found.append((scores.logprobs_BA.detach(), scores.entropy_BA))
        gradients.append({n: p.grad.clone() for n, p in policy.trainable.items()})
        policy.zero_grad()
    assert held[0] == len(tree.targets_U) > 4 == max(held[1:])
    for one, other in zip(*found, strict=True):
        assert_same(other, one)
    for name, gradient in gradients[0].items():
        assert_same(gradients[1][name], gradient)


def test_hidden_states_are_those_before_each_action_token_and_after_the_last(folders):
    policy, model = policy_of(folders["llama"]), plain_model(folders["llama"])
    episodes = shared_beginnings(3)
    with torch.no_grad():
        scores = policy.score(token_tree(episodes), 1.0)
        for b, e in enumerate(episodes):
            read = [before for before, _ in acted(e)] + [e.token_ids]
            *before_H, last_H = (model.base_model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in read)
            assert_same(scores.hidden_BAH[b, : len(before_H)], torch.stack(before_H))
            assert_same(scores.last_BH[b], last_H)


def test_padding_scores_0_and_an_early_token_matters(folders):
    policy = policy_of(folders["llama"])
    first, second = episode([([1, 2, 3], [4]), ([5], [6])]), episode([([9, 2, 3], [4]), ([5], [6])])
    with torch.no_grad():
        pair, alone = (policy.score(token_tree(es), 1.0) for es in ([first, episode([([1], [2])])], [second]))
    assert pair.logprobs_BA[1, 1] == 0 and pair.entropy_BA[1, 1] == 0
    assert (pair.logprobs_BA[0] - alone.logprobs_BA[0]).abs().min() > 1e-3


def test_the_temperature_divides_the_logits(folders):
    policy, model = policy_of(folders["qwen2"]), plain_model(folders["qwen2"])
    e = episode([([7, 8, 9], [10])])
    with torch.no_grad():
        logits_V = model(torch.tensor([[7, 8, 9]])).logits[0, -1]
        for temperature in (0.25, 1.0, 3.0):
            found = policy.score(token_tree([e]), temperature)
            p = (logits_V / temperature).exp() / (logits_V / temperature).exp().sum()
            assert_same(found.logprobs_BA, p[10].log()[None, None])
            assert_same(found.entropy_BA, -(p * p.log()).sum()[None, None])


def test_lora_in_the_last_layers_trains_these_alone_and_begins_as_the_model_itself(folders):
    plain = policy_of(folders["llama"])
    policy = policy_of(folders["llama"], lora=LoRA(rank=2, alpha=4, targets=("q_proj", "down_proj"), last_layers=2))
    kinds = ("self_attn.q_proj", "mlp.down_proj")
    wanted = {
        f"model.model.layers.{layer}.{kind}.lora_{side}.default.weight"
        for layer in (1, 2) for kind in kinds for side in "AB"
    }  # fmt: skip
    assert set(policy.trainable) == wanted
    tree = token_tree(shared_beginnings(4))
    with torch.no_grad():
        torch.testing.assert_close(policy.score(tree, 1.0).logprobs_BA, plain.score(tree, 1.0).logprobs_BA)
    policy.score(tree, 1.0).logprobs_BA.sum().backward()
    assert all(p.grad.abs().max() > 0 for n, p in policy.trainable.items() if ".lora_B." in n)
    assert all(p.grad is None for p in policy.parameters() if not p.requires_grad)


@pytest.mark.parametrize("targets", [("q_proj", "v_porj"), ("gate_up_proj",)])
def test_a_target_of_a_lora_that_is_no_layer_is_refused(folders, targets):
    with pytest.raises(
        BadInput, match=rf"policy\.lora\.targets: {targets[-1]} is no linear layer.*q_proj, up_proj, v_proj"
    ):
        policy_of(folders["llama"], lora=LoRA(targets=targets))


def test_lora_in_a_layer_whose_matrix_the_embeddings_share_is_refused(tmp_path):
    folder = tiny_model_folder(tmp_path)
    with pytest.raises(BadInput, match=r"policy\.lora\.targets: lm_head has the matrix of the embeddings"):
        CausalLMPolicy(str(folder), lora=LoRA(targets=("q_proj", "lm_head"))).load()
    config = AutoConfig.from_pretrained(folder)
    config.tie_word_embeddings = False
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    untied = CausalLMPolicy(str(folder), lora=LoRA(targets=("q_proj", "lm_head")))
    untied.load()
    assert any(name.startswith("model.lm_head.lora_A") for name in untied.trainable)


def test_the_update_of_a_lora_is_scaled_by_alpha_over_rank(folders):
    policy = policy_of(folders["llama"], lora=LoRA(rank=2, alpha=6, targets=("v_proj",), last_layers=1))
    model = plain_model(folders["llama"])
    side = {n.split(".lora_")[1][0]: p for n, p in policy.trainable.items()}
    with torch.no_grad():
        side["B"].normal_(generator=torch.Generator().manual_seed(0))
        model.model.layers[2].self_attn.v_proj.weight += 3.0 * side["B"] @ side["A"]
        episodes = shared_beginnings(5)
        scores = policy.score(token_tree(episodes), 1.0)
        assert_same(scores.logprobs_BA, padded(naive(model, episodes, 1.0)[0], scores.logprobs_BA))


def test_adapters_on_bfloat16_weights_are_float32(folders):
    policy = policy_of(folders["llama"], dtype="bfloat16", lora=LoRA(rank=2))
    assert {p.dtype for p in policy.trainable.values()} == {torch.float32}
    assert {p.dtype for p in policy.parameters() if not p.requires_grad} == {torch.bfloat16}
    tree = token_tree(shared_beginnings(6))
    scores = policy.score(tree, 1.0)
    assert scores.logprobs_BA.dtype == torch.float32
    reference = policy_of(folders["llama"]).score(tree, 1.0).logprobs_BA.detach()
    gap = (scores.logprobs_BA.detach() - reference).abs()
    assert 0 < gap.mean() < 0.1  # about 8 bits in each of some dozen operations; logits of size about 3


def test_full_fine_tuning_in_bfloat16_and_empty_adapters_are_refused():
    with pytest.raises(BadInput, match=r"policy\.dtype=bfloat16"):
        CausalLMPolicy(dtype="bfloat16")
    with pytest.raises(BadInput, match=r"policy\.lora\.rank=0"):
        CausalLMPolicy(lora=LoRA(rank=0))


def test_nothing_is_loaded_by_the_constructor_and_once_by_load(folders):
    policy = CausalLMPolicy(str(folders["llama"]), dtype="float64")
    assert policy.model is None
    with pytest.raises(RuntimeError, match="load"):
        policy.score(token_tree([episode([([1], [2])])]), 1.0)
    policy.load()
    model = policy.hf
    policy.load()
    assert policy.hf is model and policy.training


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_on_the_meta_device_shapes_are_built_and_nothing_is_read(folders, lora: LoRA | None):
    real = policy_of(folders["qwen3"], lora=lora)
    shapes = CausalLMPolicy(str(folders["qwen3"]), dtype="float64", lora=lora)
    shapes.load("meta")
    assert {p.device.type for p in shapes.parameters()} == {"meta"}
    assert {n: p.shape for n, p in shapes.trainable.items()} == {n: p.shape for n, p in real.trainable.items()}


@pytest.mark.parametrize("lora", [None, LoRA(rank=2, last_layers=2)])
def test_gradient_checkpointing_changes_no_gradient(folders, lora: LoRA | None):
    tree = token_tree(shared_beginnings(8))
    grads = []
    for checkpointing in (False, True):
        policy = policy_of(folders["llama"], gradient_checkpointing=checkpointing, lora=lora)
        with torch.no_grad():
            for number, p in enumerate(policy.trainable.values()):  # adapters begin at random
                p.normal_(std=0.2, generator=torch.Generator().manual_seed(number))
        computed: list[int] = []
        policy.hf.model.layers[1].mlp.register_forward_pre_hook(lambda *_, seen=computed: seen.append(1))
        policy.score(tree, 0.9).logprobs_BA.sum().backward()
        assert len(computed) == (2 if checkpointing else 1)
        grads.append({n: p.grad for n, p in policy.trainable.items()})
    for name, gradient in grads[0].items():
        assert gradient.abs().max() > 0
        assert_same(grads[1][name], gradient)


def test_being_another_policy_for_a_while_gives_back_the_very_same_weights(folders):
    policy = policy_of(folders["llama"])
    tree = token_tree(shared_beginnings(9))
    before, reference = policy.snapshot(), policy.snapshot()
    addresses = {n: p.data_ptr() for n, p in policy.trainable.items()}
    with torch.no_grad():
        for tensor in reference.values():
            tensor.mul_(1.5)
        own = policy.score(tree, 1.0).logprobs_BA
        with pytest.raises(ZeroDivisionError), policy.using(reference):
            other = policy.score(tree, 1.0).logprobs_BA
            raise ZeroDivisionError
        assert not torch.allclose(own, other)
        assert torch.equal(policy.score(tree, 1.0).logprobs_BA, own)
    assert {n: p.data_ptr() for n, p in policy.trainable.items()} == addresses
    assert all(torch.equal(p, before[n]) for n, p in policy.trainable.items())


def test_the_identity_follows_the_weights_and_the_adapters(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_AGENTS_CACHE", str(tmp_path))
    identities = [
        CausalLMPolicy(str(folder), lora=lora).identity
        for folder in (folders["llama"], folders["qwen2"])
        for lora in (None, LoRA(rank=2), LoRA(rank=4))
    ]
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])
    assert identities[0] == CausalLMPolicy(str(folders["llama"])).identity
