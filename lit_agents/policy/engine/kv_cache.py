"""Keys and values of many conversations in memory that is allocated once, read in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lit_agents.policy.attention import additive, fold, masked_attention


@dataclass(frozen=True)
class Span:
    """Some new tokens of one conversation, and where they stand in the flat sequence fed to the model."""

    slot: int
    start: int
    """Tokens of this conversation that are already in the cache."""
    length: int
    """New tokens."""
    offset: int
    """Place of the first new token in the flat sequence."""


class KVCache:
    """(layers, slots, kv heads, context, D) twice. Its memory is touched, and so taken, only as slots fill."""

    def __init__(self, layers: int, slots: int, kv_heads: int, context: int, width: int, like: Tensor) -> None:
        shape = (layers, slots, kv_heads, context, width)
        # zeros, not empty: a masked place is still read, and garbage there could be NaN, which no mask removes
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros(shape, dtype=like.dtype, device=like.device)

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Give one slot the tokens [start, stop) of another."""
        for store in (self.keys, self.values):
            store[:, target, :, start:stop] = store[:, source, :, start:stop]

    def write(self, layer: int, spans: Sequence[Span], key: Tensor, value: Tensor) -> None:
        """Store (1, kv heads, S, D) keys and values of a flat sequence."""
        for store, new in ((self.keys[layer], key[0]), (self.values[layer], value[0])):
            for s in spans:
                store[s.slot, :, s.start : s.start + s.length] = new[:, s.offset : s.offset + s.length]


class PrefillAttention:
    """New tokens of several conversations, each seeing its own conversation up to itself. No padding."""

    def __init__(self, cache: KVCache, spans: Sequence[Span], folds: int) -> None:
        self._cache, self._spans, self._biases = cache, spans, []
        device = cache.keys.device
        for span in spans:
            new = torch.arange(span.start, span.start + span.length, device=device)
            sees = torch.arange(span.start + span.length, device=device)[None] <= new[:, None]
            self._biases.append(additive(sees, folds, cache.keys.dtype))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `lit_agents.policy.attention.Attend`."""
        self._cache.write(layer, self._spans, key, value)
        heads, kv_heads, width = query.shape[1], key.shape[1], query.shape[3]
        out = torch.empty_like(query)
        for span, bias in zip(self._spans, self._biases, strict=True):
            stop = span.offset + span.length
            folded = fold(query[:, :, span.offset : stop], kv_heads)
            k = self._cache.keys[layer, span.slot : span.slot + 1, :, : span.start + span.length]
            v = self._cache.values[layer, span.slot : span.slot + 1, :, : span.start + span.length]
            attended = masked_attention(folded, k, v, bias, scale)
            out[:, :, span.offset : stop] = attended.reshape(1, heads, span.length, width)
        return out.transpose(1, 2)


class DecodeAttention:
    """One new token for each of several conversations. Neighbouring slots are attended in one call, in place."""

    def __init__(self, cache: KVCache, spans: Sequence[Span]) -> None:
        self._cache = cache
        cuts = [0, *(i for i in range(1, len(spans)) if spans[i].slot != spans[i - 1].slot + 1), len(spans)]
        self._slots = torch.tensor([s.slot for s in spans], device=cache.keys.device)
        self._starts = torch.tensor([s.start for s in spans], device=cache.keys.device)
        self._runs = []
        for first, last in pairwise(cuts):
            lengths = self._starts[first:last] + 1
            sees = torch.arange(int(lengths.max()), device=lengths.device)[None] < lengths[:, None]
            bias = torch.zeros(sees.shape, dtype=cache.keys.dtype, device=sees.device).masked_fill_(
                ~sees, float("-inf")
            )
            self._runs.append((first, last, spans[first].slot, bias[:, None, None]))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `lit_agents.policy.attention.Attend`."""
        for store, new in ((self._cache.keys[layer], key[0]), (self._cache.values[layer], value[0])):
            store[self._slots, :, self._starts] = new.transpose(0, 1).to(store.dtype)
        kv_heads, rows = key.shape[1], query[0].transpose(0, 1)  # (S, heads, D): one query per conversation
        out = torch.empty_like(rows)
        for first, last, slot, bias in self._runs:
            stop = slot + last - first
            k = self._cache.keys[layer, slot:stop, :, : bias.shape[-1]]
            v = self._cache.values[layer, slot:stop, :, : bias.shape[-1]]
            q = rows[first:last].reshape(last - first, kv_heads, -1, rows.shape[-1])
            attended = masked_attention(q, k, v, bias, scale)
            out[first:last] = attended.flatten(1, 2)
        return out[None]
