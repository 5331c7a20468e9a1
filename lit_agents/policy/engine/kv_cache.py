"""Keys and values of computed tokens in memory that is allocated once, and attention that reads them where they are.

Tokens stand in no order: a block lists the places its queries look at. What several conversations share is stored once, and
read once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_agents.policy.attention import masked_attention
from lit_agents.policy.engine.prefix_trie import Places, common_prefix

CLUSTER = 8
"""Conversations whose newest tokens are attended together: their shared keys are read once, but each is compared with all."""
QUERIES = 128
"""New tokens of one conversation that are attended together; the keys behind a token are computed for it in vain."""
RUNS, WASTE = 16, 1.3
"""Conversations whose new tokens are attended together, and how much larger than all of them the padded whole may be."""


@dataclass(frozen=True)
class Block:
    """Queries that look at the same keys, T times at once; all of one size, shorter ones padded."""

    sizes: tuple[int, ...]
    """(T,) queries that are real; in all blocks together they are the rows of the flat sequence, in order."""
    keys_TL: Places
    """Places of keys; anything on padding."""
    sees_TQL: NDArray[np.bool_]
    """Which of them each query sees."""


def causal_blocks(runs: Sequence[tuple[Places, int]]) -> list[Block]:
    """Attention of new tokens.

    Args:
        runs: a path, and how many new tokens it ends with. Neighbours of about the same size are attended in one go.
    """
    together: list[list[tuple[Places, int]]] = []
    for run in runs:
        if not together or not _alike([*together[-1], run]):
            together.append([])
        together[-1].append(run)
    blocks = []
    for some in together:
        parts = [(path, np.tri(new, len(path), len(path) - new, dtype=bool)) for path, new in some]
        blocks.append(_padded(parts))
    return blocks


def _alike(runs: Sequence[tuple[Places, int]]) -> bool:
    """Whether padding to one size would cost less than what many small calls cost."""
    most = len(runs) * max(new for _, new in runs) * max(len(path) for path, _ in runs)
    return len(runs) <= RUNS and most <= WASTE * sum(new * len(path) for path, new in runs)


def _padded(parts: Sequence[tuple[Places, NDArray[np.bool_]]]) -> Block:
    """One block of keys and who sees them, which differ in size."""
    sizes = tuple(len(sees) for _, sees in parts)
    most_keys = max(len(keys) for keys, _ in parts)
    keys_TL = np.zeros((len(parts), most_keys), dtype=np.int64)
    sees_TQL = np.zeros((len(parts), max(sizes), most_keys), dtype=bool)
    sees_TQL[:, :, 0] = True  # a query that is padding must see something, or its softmax is 0 / 0
    for t, (keys, sees) in enumerate(parts):
        keys_TL[t, : len(keys)] = keys
        sees_TQL[t, : len(sees), : len(keys)] = sees
    return Block(sizes, keys_TL, sees_TQL)


def newest_block(paths: Sequence[Places]) -> Block:
    """The last token of each conversation. Those that are alike must be neighbours: a trie's depth-first order."""
    clusters: list[list[Places]] = []
    for path in paths:
        mine = clusters[-1] if clusters else []
        if not mine or len(mine) == CLUSTER or 2 * common_prefix(mine[0], path) < len(path):
            clusters.append(mine := [])
        mine.append(path)
    return _padded([_together(cluster) for cluster in clusters])


def _together(cluster: Sequence[Places]) -> tuple[Places, NDArray[np.bool_]]:
    """The nodes of several paths, each once, and which of them each path has."""
    shared = [0, *(common_prefix(before, path) for before, path in pairwise(cluster))]
    tails = [path[start:] for path, start in zip(cluster, shared, strict=True)]
    ends = np.cumsum([len(tail) for tail in tails])
    sees = np.zeros((len(cluster), int(ends[-1])), dtype=bool)
    places = np.zeros(0, dtype=np.int64)  # where the path before stands among the keys
    for row, (start, tail, end) in enumerate(zip(shared, tails, ends, strict=True)):
        places = np.concatenate([places[:start], np.arange(end - len(tail), end)])
        sees[row, places] = True
    return np.concatenate(tails), sees


class KVCache:
    """(layers, kv heads, places, D) twice. Its memory is touched, and so taken, only as places are used."""

    def __init__(self, layers: int, kv_heads: int, places: int, width: int, like: Tensor) -> None:
        shape = (layers, kv_heads, places, width)
        # zeros, not empty: a masked place is still read, and garbage there could be NaN, which no mask removes
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros(shape, dtype=like.dtype, device=like.device)

    @property
    def nbytes(self) -> int:
        """When all of it is used."""
        return self.keys.nbytes + self.values.nbytes


class CachedAttention:
    """New tokens are stored first, so a block may look at other new tokens as well as at what was there.

    Args:
        cache: where keys and values are.
        places: (S,) where the new tokens go, in the order of the flat sequence.
        blocks: who looks at what; their queries are the S new tokens in order.
        folds: queries per key head.
    """

    def __init__(self, cache: KVCache, places: Sequence[int], blocks: Sequence[Block], folds: int) -> None:
        self._cache, self._folds = cache, folds
        device, dtype = cache.keys.device, cache.keys.dtype
        self._new = torch.tensor(places, device=device)
        heads = torch.arange(cache.keys.shape[1], device=device)[:, None] * cache.keys.shape[2]
        self._parts = []
        first = 0
        for block in blocks:
            real = torch.tensor(block.sizes)[:, None] > torch.arange(block.sees_TQL.shape[1])
            rows = torch.zeros(real.shape, dtype=torch.long)
            rows[real] = torch.arange(first, first + sum(block.sizes))
            first += sum(block.sizes)
            keys = (heads + torch.from_numpy(block.keys_TL.reshape(-1)).to(device)).reshape(-1)
            bias = torch.zeros(block.sees_TQL.shape, dtype=dtype).masked_fill_(
                ~torch.from_numpy(block.sees_TQL), -torch.inf
            )
            bias = bias.to(device).repeat(1, folds, 1)[None]
            real_rows = torch.nonzero(real.reshape(-1)).squeeze(1)
            self._parts.append((rows.to(device), keys, bias, real_rows.to(device)))

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See `lit_agents.policy.attention.Attend`."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys.index_copy_(1, self._new, key[0].to(keys.dtype))
        values.index_copy_(1, self._new, value[0].to(values.dtype))
        kv_heads, width = keys.shape[0], query.shape[3]
        heads_KFSD = query[0].reshape(kv_heads, self._folds, -1, width)
        outputs = []
        for rows, places, bias, real in self._parts:
            times, most = rows.shape
            q = heads_KFSD.index_select(2, rows.reshape(-1)).reshape(kv_heads, self._folds, times, most, width)
            q = q.transpose(1, 2).reshape(kv_heads, times, self._folds * most, width)
            k = keys.view(-1, width).index_select(0, places).view(kv_heads, times, -1, width)
            v = values.view(-1, width).index_select(0, places).view(kv_heads, times, -1, width)
            out = masked_attention(q, k, v, bias, scale).reshape(kv_heads, times, self._folds, most, width)
            out = out.permute(1, 3, 0, 2, 4).reshape(times * most, kv_heads * self._folds, width)
            outputs.append(out if len(real) == len(out) else out.index_select(0, real))
        return torch.cat(outputs)[None]
