"""Attention as an argument: the one hook through which a Hugging Face model meets our token trees and KV caches.

A model loaded with ``attn_implementation=ATTENTION`` asks for no mask and keeps no cache of its own. Whoever calls it passes
``attend``, a function ``(layer, query, key, value, scale) -> output``, that decides what each token sees. Grouped queries are
folded into the query length instead of repeating keys and values.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_agents.types import TokenTree

ATTENTION = "lit_agents"


class Attend(Protocol):
    """What a caller of the model supplies."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(1, heads, S, D), (1, kv heads, S, D) twice -> (1, S, heads, D)."""
        ...


def register() -> None:
    """Make `ATTENTION` known to transformers. May be called again."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _forward)


def _forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    attend: Attend,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    if softcap is not None or s_aux is not None:
        raise NotImplementedError("its attention caps scores or has sinks, which token trees do not model")
    return attend(module.layer_idx, query, key, value, scaling), None


def fold(query: Tensor, kv_heads: int) -> Tensor:
    """(B, heads, S, D) -> (B, kv heads, heads / kv heads * S, D): the queries that share a key become more queries."""
    batch, heads, length, width = query.shape
    return query.reshape(batch, kv_heads, heads // kv_heads * length, width)


def additive(mask: Tensor, folds: int, dtype: torch.dtype) -> Tensor:
    """A boolean (S, keys) mask as the additive (1, 1, folds * S, keys) that `fold`-ed queries need."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
    return bias.repeat(folds, 1)[None, None]


def masked_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
    """(B, heads, Q, D), (B, heads, K, D) twice, bias that broadcasts to (B, heads, Q, K) -> (B, heads, Q, D)."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return cast(Tensor, _MatrixBackward.apply(query, key, value, bias, scale))  # type: ignore[no-untyped-call]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)


class _MatrixBackward(torch.autograd.Function):
    """torch's fused attention, with a backward pass of matrix products: in bfloat16 on a CPU torch's own is slower.

    Scores and their softmax are float32 in both passes. Rounded to bfloat16, a score of 200 is off by up to .5, and models with
    large biases on queries and keys (Qwen2.5) have such scores. The weights are computed again in the backward pass: they
    are the one thing here that grows with the square of the length.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(query, key, value, bias)
        ctx.scale = scale
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, bias = ctx.saved_tensors
        exact = torch.promote_types(torch.float32, query.dtype)
        with torch.autocast(query.device.type, enabled=False):  # it would round the scores after all
            scores = torch.matmul(query.to(exact) * ctx.scale, key.to(exact).transpose(-1, -2)).add_(bias)
        weights = torch.softmax(scores, dim=-1)
        of_weights = torch.matmul(gradient, value.transpose(-1, -2)).to(exact)
        of_scores = (
            torch.ops.aten._softmax_backward_data(of_weights, weights, -1, exact).mul_(ctx.scale).to(query.dtype)
        )
        of_query, of_key = torch.matmul(of_scores, key), torch.matmul(of_scores.transpose(-1, -2), query)
        return of_query, of_key, torch.matmul(weights.to(value.dtype).transpose(-1, -2), gradient), None, None


def tree_attention(tree: TokenTree, folds: int, dtype: torch.dtype) -> Attend:
    """The way that suits where the tree is."""
    return FlexTreeAttention(tree) if tree.ids_S.device.type == "cuda" else TreeAttention(tree, folds, dtype)


class FlexTreeAttention:
    """The same as `TreeAttention` in one fused kernel for GPUs, which skips the blocks of keys that no query sees.

    Args:
        compiled: off in tests on a CPU, where the kernel is written out in plain operations.
    """

    def __init__(self, tree: TokenTree, compiled: bool = True) -> None:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        ends, size = tree.ends_S, len(tree.ends_S)

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (query < ends[key])

        self._mask = create_block_mask(sees, None, None, size, size, device=str(ends.device))
        self._attention: Any = _compiled(flex_attention) if compiled else flex_attention

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `Attend`."""
        query, key = query.to(value.dtype), key.to(value.dtype)  # rotary embeddings are float32 where autocast is on
        out = self._attention(query, key, value, block_mask=self._mask, scale=scale, enable_gqa=True)
        return cast(Tensor, out.transpose(1, 2))


@cache
def _compiled(function: Any) -> Any:
    """Once for all trees: every tree has another length."""
    return torch.compile(function, dynamic=True)


class TreeAttention:
    """Each node sees itself and what came before it in its conversation; nothing is computed for the rest.

    Queries are taken in blocks of consecutive nodes. The keys a block needs are its own nodes and the ancestors of any of
    them, which in depth-first order are the nodes before the block whose subtree reaches into it.
    """

    def __init__(self, tree: TokenTree, folds: int, dtype: torch.dtype, block: int = 128) -> None:
        ends, size = tree.ends_S, len(tree.ends_S)
        self._blocks = []
        for start in range(0, size, block):
            stop = min(start + block, size)
            own = torch.arange(start, stop, device=ends.device)
            keys = torch.cat([torch.nonzero(ends[:start] > start).squeeze(1), own])
            sees = (keys[None] <= own[:, None]) & (own[:, None] < ends[keys][None])
            self._blocks.append((start, stop, keys, additive(sees, folds, dtype)))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `Attend`."""
        heads, kv_heads, width = query.shape[1], key.shape[1], query.shape[3]
        outputs = []
        for start, stop, keys, bias in self._blocks:
            folded = fold(query[:, :, start:stop], kv_heads)
            k, v = key.index_select(2, keys), value.index_select(2, keys)
            out = masked_attention(folded, k, v, bias, scale)
            outputs.append(out.reshape(1, heads, stop - start, width))
        return torch.cat(outputs, dim=2).transpose(1, 2)
