"""The engine's trie of computed tokens, and the blocks that are attended together, against sets and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lit_agents.policy.engine import kv_cache
from lit_agents.policy.engine.kv_cache import Block, CachedAttention, KVCache, causal_blocks, newest_block
from lit_agents.policy.engine.prefix_trie import PrefixTrie, common_prefix

TALKS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=12)


def grown(talks: list[list[int]]) -> tuple[PrefixTrie, int]:
    """A trie with these conversations, and how many nodes they made."""
    trie, made = PrefixTrie(len(talks), 8), 0
    for session, talk in enumerate(talks):
        made += sum([trie.append(session, token) for token in talk])
    return trie, made


@given(TALKS)
def test_there_is_one_node_for_every_distinct_beginning(talks: list[list[int]]):
    trie, made = grown(talks)
    beginnings = {tuple(talk[: i + 1]) for talk in talks for i in range(len(talk))}
    assert made == len(beginnings)
    node_of = {}
    for session, talk in enumerate(talks):
        assert trie.ids(session) == talk
        for i, node in enumerate(trie.path(session).tolist()):
            assert node_of.setdefault(tuple(talk[: i + 1]), node) == node
    assert len(set(node_of.values())) == len(beginnings)


@given(TALKS, TALKS)
def test_what_nobody_uses_any_more_is_free_and_the_rest_stays(talks: list[list[int]], later: list[list[int]]):
    trie, _ = grown(talks)
    trie.rewind(0, 0)
    trie.rewind(0, 0)  # twice is once
    assert list(trie.ids(0)) == []
    for session in range(1, len(talks)):
        assert trie.ids(session) == talks[session]
    for session in range(1, len(talks)):
        trie.rewind(session, 0)
    again = later[: len(talks)]
    made = sum([trie.append(session, token) for session, talk in enumerate(again) for token in talk])
    assert made == len({tuple(talk[: i + 1]) for talk in again for i in range(len(talk))})  # nothing is left of before


def test_full_conversations_in_all_sessions_fit_and_one_token_more_does_not():
    trie = PrefixTrie(3, 4)
    for session in range(3):
        assert all(trie.append(session, 10 * session + i) for i in range(4))
    with pytest.raises(IndexError):
        trie.append(0, 9)


@given(TALKS, st.integers(1, 4))
@settings(deadline=None)
def test_the_newest_token_of_each_conversation_sees_its_path_and_nothing_else(talks: list[list[int]], cluster: int):
    trie, _ = grown(talks)
    order = sorted(range(len(talks)), key=lambda s: talks[s])
    paths = list({tuple(trie.path(s).tolist()): trie.path(s) for s in order}.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kv_cache, "CLUSTER", cluster)
        block = newest_block(paths)
    assert sum(block.sizes) == len(paths) and max(block.sizes) <= cluster
    rows = [(t, q) for t, size in enumerate(block.sizes) for q in range(size)]
    for (t, q), path in zip(rows, paths, strict=True):
        assert sorted(block.keys_TL[t][block.sees_TQL[t, q]].tolist()) == sorted(path.tolist())
    assert block.sees_TQL.any(-1).all()  # also where there is padding


def test_conversations_that_share_their_beginning_read_it_once():
    trie, _ = grown([[1, 2, 0, 1, 2, 0, 0], [1, 2, 0, 1, 2, 0, 1], [1, 2, 0, 1, 2, 1, 1], [2, 2, 0]])
    block = newest_block([trie.path(s) for s in range(4)])
    assert block.sizes == (3, 1) and block.keys_TL.shape == (2, 10)  # 7 + 1 + 2 nodes of the first three


RUN = st.integers(1, 9).flatmap(lambda length: st.tuples(st.just(length), st.integers(1, length)))


@given(st.lists(RUN, min_size=1, max_size=6))
def test_new_tokens_of_a_conversation_see_what_came_before_them_and_themselves(lengths: list[tuple[int, int]]):
    runs = [(np.arange(length) + 100 * i, new) for i, (length, new) in enumerate(lengths)]
    blocks = causal_blocks(runs)
    assert [size for block in blocks for size in block.sizes] == [new for _, new in runs]
    parts = [(block, t) for block in blocks for t in range(len(block.sizes))]
    for (block, t), (path, new) in zip(parts, runs, strict=True):
        for q in range(new):
            assert block.keys_TL[t][block.sees_TQL[t, q]].tolist() == path[: len(path) - new + q + 1].tolist()
    assert all(block.sees_TQL.any(-1).all() for block in blocks)


def test_runs_of_about_one_size_are_attended_together_and_a_long_one_apart():
    runs = [(np.arange(length), new) for length, new in ((40, 8), (42, 9), (41, 8), (300, 100), (40, 8))]
    assert [block.sizes for block in causal_blocks(runs)] == [(8, 9, 8), (100,), (8,)]


def test_attention_over_scattered_places_is_that_of_each_query_over_its_own_keys():
    torch.manual_seed(0)
    cache = KVCache(2, 2, 20, 4, torch.zeros(0, dtype=torch.float64))
    cache.keys.normal_()
    cache.values.normal_()
    paths = [np.array([3, 9, 4]), np.array([3, 9, 11, 5]), np.array([8, 2])]  # 4, 5 and 2 are new
    blocks = [newest_block(paths), *causal_blocks([(np.array([3, 0, 1, 12]), 2)])]  # and 1 and 12, one after the other
    places = [4, 5, 2, 1, 12]
    query, key, value = (torch.randn(1, heads, 5, 4, dtype=torch.float64) for heads in (6, 2, 2))
    found = CachedAttention(cache, places, blocks, 3)(1, query, key, value, 0.5)
    assert torch.equal(cache.keys[1][:, places], key[0]) and torch.equal(cache.values[1][:, places], value[0])
    seen = [*paths, np.array([3, 0, 1]), np.array([3, 0, 1, 12])]
    for row, path in enumerate(seen):
        for head in range(6):
            keys: Tensor = cache.keys[1, head // 3, path]
            weights = torch.softmax(0.5 * keys @ query[0, head, row], dim=0)
            torch.testing.assert_close(found[0, row, head], weights @ cache.values[1, head // 3, path])


def test_common_beginnings_are_counted_to_the_first_difference():
    one, other = np.array([1, 2, 3]), np.array([1, 2, 4, 3])
    assert [common_prefix(one, other), common_prefix(one, one[:2]), common_prefix(one, np.array([5]))] == [2, 2, 0]


def test_blocks_are_of_one_size_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kv_cache, "CLUSTER", 1)
    block = newest_block([np.array([1, 2, 3]), np.array([4])])
    assert isinstance(block, Block) and block.sizes == (1, 1) and block.keys_TL[1].tolist() == [4, 0, 0]
