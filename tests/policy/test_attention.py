"""Attention by matrix products against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_agents.policy import attention
from lit_agents.policy.attention import masked_attention


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values, a bias that hides a third of the keys from each query, and a gradient of the output."""
    torch.manual_seed(0)
    query, key, value, gradient = (torch.randn(2, 3, n, 16, dtype=dtype) for n in (12, 20, 20, 12))
    bias = torch.zeros(1, 1, 12, 20, dtype=dtype)
    bias[..., torch.rand(12, 20) < 0.33] = float("-inf")
    bias[..., 0] = 0
    return query, key, value, bias, gradient


def outcome(function, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, gradient: Tensor) -> list[Tensor]:
    """The output, and the gradients of queries, keys and values."""
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    out = function(*leaves, bias)
    out.backward(gradient)
    return [out.detach(), *(x.grad for x in leaves if x.grad is not None)]


def fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=0.25)


def test_the_matrix_products_and_their_gradients_are_those_of_torch():
    given = inputs(torch.float64)
    ours = outcome(lambda q, k, v, b: attention._MatrixBackward.apply(q, k, v, b, 0.25), *given)
    for mine, theirs in zip(ours, outcome(fused, *given), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_precision_is_close_to_double(dtype):
    given = inputs(dtype)
    ours = outcome(lambda q, k, v, b: masked_attention(q, k, v, b, 0.25), *given)
    exact = outcome(fused, *(x.double() for x in given))
    tolerance = 0.03 if dtype == torch.bfloat16 else 1e-5
    for mine, theirs in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=tolerance, atol=tolerance)


def test_in_bfloat16_on_a_cpu_the_backward_pass_is_the_matrix_products():
    query, key, value, bias, _ = inputs(torch.bfloat16)
    out = masked_attention(query.requires_grad_(), key, value, bias, 0.25)
    assert type(out.grad_fn).__name__ == "_MatrixBackwardBackward" and out.dtype == torch.bfloat16


def error(found: Tensor, exact: Tensor) -> float:
    """Relative, of the whole tensor."""
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("with_gradient", [False, True])
def test_in_bfloat16_large_scores_are_computed_as_exactly_as_by_torch(with_gradient):
    """Queries and keys with a large common part, as the biases of Qwen2.5 make them: scores of hundreds."""
    query, key, value, bias, gradient = inputs(torch.float32)
    common = torch.randn(16) * 10
    given = [x.bfloat16() for x in (query + common, key + common, value, bias, gradient)]
    with torch.set_grad_enabled(with_gradient):
        exact, theirs = fused(*(x.double() for x in given[:4])), fused(*given[:4])
        assert error(masked_attention(*given[:4], 0.25), exact) <= 1.01 * error(theirs, exact) < 0.01


@pytest.mark.parametrize("autocast", [False, True])
def test_in_bfloat16_gradients_of_large_scores_are_no_less_exact_than_those_of_torch(autocast):
    query, key, value, bias, gradient = inputs(torch.float32)
    common = torch.randn(16) * 10
    given = [x.bfloat16() for x in (query + common, key + common, value, bias, gradient)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = outcome(lambda q, k, v, b: masked_attention(q, k, v, b, 0.25), *given)
    exact = outcome(fused, *(x.double() for x in given))
    for mine, theirs, right in zip(ours, outcome(fused, *given), exact, strict=True):
        assert error(mine, right) <= 1.01 * error(theirs, right)
