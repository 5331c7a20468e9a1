"""Packed weights change no bit, and are never those of before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.policy import cpu_kernels as packed
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from lit_agents.policy.cpu_kernels import pack_frozen
from tests.policy.test_causal_lm import shared_beginnings
from tests.tiny import tiny_model_folder

pytestmark = pytest.mark.skipif(
    not packed._there(), reason="this processor has no bfloat16 products that can be packed"
)


def frozen(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias, dtype=torch.bfloat16).requires_grad_(False)
    pack_frozen(layer)
    return layer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(576, 576), (576, 192), (1536, 576), (64, 259)])
def test_products_are_the_same_bit_for_bit(inputs: int, outputs: int, bias: bool):
    torch.manual_seed(0)
    layer = frozen(inputs, outputs, bias)
    for rows in (1, 3, 20, 64, 300):
        x = torch.randn(1, rows, inputs).bfloat16()
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


def test_a_weight_that_is_written_to_or_replaced_is_packed_again():
    torch.manual_seed(0)
    layer, x = frozen(64, 64, False), torch.randn(5, 64).bfloat16()
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.equal(layer(x), 2 * before)
    mine, layer.weight.data = layer.weight.data, torch.zeros_like(layer.weight)
    assert not layer(x).any()
    layer.weight.data = mine
    assert torch.equal(layer(x), 2 * before)
    layer.float()
    assert layer(x.float()).dtype == torch.float32


def test_gradients_go_through(monkeypatch):
    torch.manual_seed(0)
    layer, x = frozen(64, 32, False), torch.randn(5, 64).bfloat16().requires_grad_()
    layer(x).sum().backward()
    assert torch.equal(x.grad, layer.weight.sum(0).expand(5, -1)) or torch.allclose(
        x.grad.float(), layer.weight.float().sum(0).expand(5, -1), atol=0.05
    )
    layer.weight.requires_grad_()
    layer(x.detach()).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("lora", [LoRA(rank=2), LoRA(rank=2, last_layers=1)])
def test_a_policy_scores_the_same_with_and_without_it(tmp_path: Path, monkeypatch, lora: LoRA):
    folder, tree, found = tiny_model_folder(tmp_path), token_tree(shared_beginnings(3)), []
    for there in (True, False):
        monkeypatch.setattr(packed, "_there", lambda there=there: there)
        policy = CausalLMPolicy(str(folder), dtype="bfloat16", lora=lora)
        torch.manual_seed(0)
        policy.load()
        with torch.no_grad():
            for p in policy.trainable.values():
                p.copy_(0.1 * torch.randn(p.shape))
            assert isinstance(policy.hf.get_output_embeddings().forward, packed._Packed) == there
            plain = policy.score(tree, 1.0).logprobs_BA
        scores = policy.score(tree, 1.0).logprobs_BA
        scores.sum().backward()
        found.append((plain, scores.detach(), [p.grad for p in policy.trainable.values()]))
        assert torch.equal(plain, scores)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_nothing_is_packed_that_is_trained_or_of_another_type(tmp_path: Path):
    policy = CausalLMPolicy(str(tiny_model_folder(tmp_path)), lora=LoRA(rank=2))  # float32
    policy.load()
    assert not any(isinstance(module.forward, packed._Packed) for module in policy.hf.modules())
    layer = nn.Linear(8, 8, dtype=torch.bfloat16)
    pack_frozen(layer)
    assert not isinstance(layer.forward, packed._Packed)
