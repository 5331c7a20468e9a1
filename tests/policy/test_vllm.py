"""What of the vLLM engine can be seen without vLLM; the rest is in `tests.vllm`."""

from __future__ import annotations

import threading
from importlib.machinery import ModuleSpec
from multiprocessing import Pipe

import pytest
import torch
from transformers import AutoModelForCausalLM

from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from lit_agents.policy.engine import vllm
from lit_agents.policy.engine.base import Request
from lit_agents.policy.engine.vllm import VLLMEngine
from lit_agents.policy.engine.vllm_process import received_weights, send_weights
from lit_agents.policy.merge_lora import folded
from lit_agents.policy.sampling import Sampling
from lit_agents.rng import stream
from tests.tiny import tiny_model_folder


@pytest.fixture
def there(monkeypatch):
    """As if vLLM were installed."""
    monkeypatch.setattr(vllm, "find_spec", lambda name: ModuleSpec(name, None))


def adapted(folder, dtype="float32") -> CausalLMPolicy:
    policy = CausalLMPolicy(str(folder), dtype=dtype, lora=LoRA(rank=2, alpha=6, targets=("q_proj", "down_proj")))
    policy.load()
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.trainable.values():
            p.copy_(0.3 * torch.randn(p.shape, generator=noise))
    return policy


def test_a_missing_vllm_is_refused_with_the_name_of_the_extra(monkeypatch):
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"lit_agents\[vllm\]"):
        VLLMEngine()


@pytest.mark.parametrize(
    ("sampling", "named"),
    [(Sampling(top_k=5, top_p=0.5), "top_p / top_k"), (Sampling(temperature=0.001), "sampling.temperature")],
)
def test_sampling_that_vllm_would_understand_otherwise_is_refused(there, tmp_path, sampling, named):
    policy = CausalLMPolicy(str(tiny_model_folder(tmp_path)))
    policy.load()
    engine = VLLMEngine()
    engine.attach(policy, 1, 64)
    with pytest.raises(BadInput, match=named):
        engine.generate([Request(0, (1, 2), stream(0))], sampling)


def test_what_it_cannot_compute_in_is_refused(there, tmp_path):
    policy = CausalLMPolicy(str(tiny_model_folder(tmp_path)), dtype="float64")
    policy.load()
    with pytest.raises(BadInput, match="float64"):
        VLLMEngine().attach(policy, 1, 64)
    with pytest.raises(BadInput, match="cache_gb"):
        VLLMEngine(cache_gb=0)


def test_its_memory_holds_every_conversation_at_its_longest_or_what_is_given(there, tmp_path):
    policy = CausalLMPolicy(str(tiny_model_folder(tmp_path)))
    policy.load()
    engine = VLLMEngine()
    engine.attach(policy, 3, 100)
    token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, width, bytes
    assert engine.most_bytes == (3 * 128 + 32) * token  # 100 tokens are four blocks of 32; one block is vLLM's own
    policy.compute_in("bf16-mixed")
    engine.attach(policy, 3, 100)
    assert engine.most_bytes == (3 * 128 + 32) * token // 2
    engine = VLLMEngine(cache_gb=2)
    engine.attach(policy, 3, 100)
    assert engine.most_bytes == 2_000_000_000


@pytest.mark.parametrize("lora", [True, False])
def test_folded_weights_make_a_plain_model_that_says_what_the_policy_says(tmp_path, lora):
    folder = tiny_model_folder(tmp_path)
    policy = adapted(folder) if lora else CausalLMPolicy(str(folder))
    policy.load()
    if not lora:
        with torch.no_grad():
            policy.hf.model.layers[1].mlp.down_proj.weight.mul_(3.0)
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    ids = torch.arange(40)[None]
    untouched = plain(ids).logits
    missing, unexpected = plain.load_state_dict(dict(folded(policy, torch.float32)), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}  # which is that of the embeddings
    policy.hf.set_attn_implementation("sdpa")
    theirs = policy.hf(ids).logits
    torch.testing.assert_close(plain(ids).logits, theirs)
    assert (untouched - theirs).abs().max() > 0.01


def test_adapters_are_folded_in_float32_and_rounded_once(tmp_path):
    policy = adapted(tiny_model_folder(tmp_path), "bfloat16")
    layer = policy.hf.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    exact = layer.base_layer.weight.double() + 3.0 * (b.double() @ a.double())
    found = dict(folded(policy, torch.bfloat16))["model.layers.0.self_attn.q_proj.weight"]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=0)
    twice = layer.base_layer.weight + (3.0 * (b @ a)).to(torch.bfloat16)
    assert (found.double() - exact).abs().mean() < (twice.double() - exact).abs().mean()


def test_weights_arrive_as_they_were_sent():
    ours, theirs = Pipe()
    weights = {"a": torch.randn(300, 70).bfloat16(), "b": torch.randn(5), "c": torch.randn(2, 3, 4).half()}
    sender = threading.Thread(target=send_weights, args=(ours, weights.items()))
    sender.start()
    found = dict(received_weights(theirs))
    sender.join()
    assert list(found) == list(weights)
    for name, value in weights.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)
    ours.close()
    theirs.close()
