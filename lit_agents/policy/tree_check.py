"""Can a model take token trees? It is tried out when the model is loaded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_agents.policy.attention import TreeAttention
from lit_agents.policy.positions import window
from lit_agents.policy.widened import computed_in_float32
from lit_agents.types import TokenTree

TOLERANCE = 3e-5
"""Largest relative difference of hidden states in float32 that is rounding."""


def kv_heads(config: Any) -> int:
    """Key heads of a layer."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


@torch.no_grad()
def why_no_trees(model: Any) -> str:
    """What stands against token trees; nothing if two conversations that begin alike are computed beside each other as apart.

    Asked twice: other words in the one conversation change nothing in the other, and a conversation alone comes out as with the
    model's own attention. Judged in float32 whatever the type of the weights: in bfloat16 the rounding of a sound model
    (Qwen2.5: .1) is larger than what a wrong mask may do.
    """
    shared, length = 6, 16
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.randint(vocabulary, (3, length), generator=torch.Generator().manual_seed(0))
    ids[:, :shared] = ids[0, :shared]
    ids[1, shared], ids[2, shared] = (ids[0, shared] + 1) % vocabulary, (ids[0, shared] + 2) % vocabulary
    config, exact = model.config, torch.promote_types(torch.float32, model.dtype)
    try:
        if (limit := window(config)) is not None and limit <= length:
            return f"its sliding window is {limit} tokens"
        folds = config.num_attention_heads // kv_heads(config)
        with computed_in_float32(model.base_model):
            beside, other = (_second_of_two(model, folds, ids[[first, 2]], shared, exact) for first in (0, 1))
            alone = _forward(model, ids[2], torch.arange(length), TreeAttention(_tree(ids[2:], length), folds, exact))
            ours = model.config._attn_implementation
            model.set_attn_implementation("sdpa")
            theirs = model.base_model(input_ids=ids[2:].to(model.device), use_cache=False).last_hidden_state[0]
            model.set_attn_implementation(ours)
        pairs = {"another conversation is seen": (other, beside), "attention differs": (alone, theirs)}
        pairs["a conversation differs from itself alone"] = (beside, alone[shared:])
    except Exception as error:  # whatever it is, the model has not shown that it can
        return f"{type(error).__name__}: {str(error)[:200]}"
    far = {what: float((a.double() - b.double()).norm() / b.double().norm()) for what, (a, b) in pairs.items()}
    return next((f"{what}, by {by:.1e}" for what, by in far.items() if not by < TOLERANCE), "")


def _tree(ids: Tensor, shared: int) -> TokenTree:
    """Two conversations, or one, that share their first tokens."""
    own = ids.shape[1] - shared
    size = shared + own * len(ids)
    nodes = torch.arange(size)
    ends = torch.where(nodes < shared, size, shared + ((nodes - shared) // max(own, 1) + 1) * own)
    flat = torch.cat([ids[0, :shared], ids[:, shared:].reshape(-1)])
    positions = torch.where(nodes < shared, nodes, shared + (nodes - shared) % max(own, 1))
    none = torch.zeros(0, dtype=torch.long)
    return TokenTree(flat, positions, ends, none, none, none[None], none[None].bool(), none, ids.numel())


def _second_of_two(model: Any, folds: int, ids: Tensor, shared: int, dtype: torch.dtype) -> Tensor:
    tree = _tree(ids, shared).to(model.device)
    attend = TreeAttention(tree, folds, dtype, block=4)
    return _forward(model, tree.ids_S, tree.positions_S, attend)[-(ids.shape[1] - shared) :]


def _forward(model: Any, ids: Tensor, positions: Tensor, attend: TreeAttention) -> Tensor:
    given = {"input_ids": ids[None].to(model.device), "position_ids": positions[None].to(model.device)}
    hidden: Tensor = model.base_model(**given, attend=attend, use_cache=False).last_hidden_state[0]
    return hidden
