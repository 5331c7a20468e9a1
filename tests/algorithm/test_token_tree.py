"""Token trees against sets of prefixes, and how episodes are cut into batches."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from lit_agents.algorithm.batch import Credited, balanced, batches, columns_of, packed
from lit_agents.algorithm.losses import token_weights
from lit_agents.algorithm.token_tree import distinct_tokens, token_tree
from lit_agents.types import Episode, TokenBatch, TokenTree, TurnRewards
from tests.rollout.handmade import acted, episode, forest


def ancestors(tree: TokenTree, node: int) -> list[int]:
    """From the root to the node itself, by the rule the noun states: j is on the way to i where j <= i < ends[j]."""
    return [j for j in range(node + 1) if node < int(tree.ends_S[j])]


def spelled(tree: TokenTree, node: int) -> list[int]:
    return [int(tree.ids_S[j]) for j in ancestors(tree, node)]


WINDOWS = pytest.mark.parametrize("windows", [False, True])


@WINDOWS
@pytest.mark.parametrize("seed", range(12))
def test_every_conversation_is_read_back_by_walking_its_ancestors(seed: int, windows: bool):
    episodes = forest(seed, episodes=7, turns=6, windows=windows)
    tree = token_tree(episodes)
    for b, e in enumerate(episodes):
        before, token = acted(e)[-1]
        assert spelled(tree, int(tree.last_B[b])) == [*before, token] == e.token_ids
        assert tree.ids_S[tree.path(int(tree.last_B[b]))].tolist() == e.token_ids
    for i in range(len(tree.ids_S)):
        assert int(tree.positions_S[i]) == len(ancestors(tree, i)) - 1


@WINDOWS
@pytest.mark.parametrize("seed", range(12))
def test_there_is_one_node_per_distinct_beginning(seed: int, windows: bool):
    episodes = forest(seed, episodes=9, turns=6, windows=windows)
    tree = token_tree(episodes)
    read = [(*before, token) for e in episodes for before, token in acted(e)]
    prefixes = {ids[:n] for ids in read for n in range(1, len(ids) + 1)}
    assert {tuple(spelled(tree, i)) for i in range(len(tree.ids_S))} == prefixes
    talks = [talk.ids for e in episodes for talk in e.conversations]
    assert len(tree.ids_S) == len(prefixes) < tree.tokens == sum(map(len, talks))
    assert distinct_tokens(talks) == len(prefixes)
    assert {tuple(spelled(tree, leaf)) for leaf in tree.leaves} == {
        ids for ids in prefixes if not any(other != ids and other[: len(ids)] == ids for other in prefixes)
    }


@WINDOWS
@pytest.mark.parametrize("seed", range(12))
def test_every_action_token_knows_what_it_was_sampled_after(seed: int, windows: bool):
    episodes = forest(seed, episodes=8, turns=6, windows=windows)
    tree = token_tree(episodes)
    for b, e in enumerate(episodes):
        expected = acted(e)
        assert tree.mask_BA[b].tolist() == [a < len(expected) for a in range(tree.mask_BA.shape[1])]
        for a, (conversation, token) in enumerate(expected):
            u = int(tree.index_BA[b, a])
            assert spelled(tree, int(tree.sources_U[u])) == conversation and int(tree.targets_U[u]) == token
        assert tree.index_BA[b, len(expected) :].eq(0).all()
    pairs = list(zip(tree.sources_U.tolist(), tree.targets_U.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)


def test_a_turn_that_drops_out_of_sight_begins_another_conversation():
    turns = [([1, 2], [3]), ([4], [5]), ([6], [7]), ([8], [9])]
    talks = episode(turns, window=[1, 1, 1, 2]).conversations
    assert [talk.ids for talk in talks] == [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 6, 7, 8, 9]]
    assert [talk.places for talk in talks] == [[2, 4, 6], [6]]  # the 3 and the 7 are trained where they were sampled
    alone = episode(turns, window=[1, 1, 2, 3]).conversations
    assert [talk.ids for talk in alone] == [[1, 2, 3, 4, 5], [1, 2, 3, 6, 7], [1, 2, 3, 8, 9]]
    assert episode([]).conversations == [] and episode([]).token_ids == []


def test_equal_episodes_collapse_into_one():
    single = episode([([1, 2], [3, 4]), ([5], [6])])
    one, three = token_tree([single]), token_tree([single] * 3)
    assert three.ids_S.tolist() == one.ids_S.tolist() == [1, 2, 3, 4, 5, 6]
    assert three.targets_U.tolist() == [3, 4, 6] and three.index_BA.tolist() == [[0, 1, 2]] * 3
    assert three.last_B.tolist() == [5, 5, 5] and (three.tokens, one.tokens) == (18, 6)


def test_the_tree_of_two_branches_is_what_a_hand_draws():
    #  1 - 2 - 3 - 4      first episode: observation 1 2, action 3 4
    #       \- 5          second episode: observation 1 2, action 5
    tree = token_tree([episode([([1, 2], [3, 4])]), episode([([1, 2], [5])])])
    assert tree.ids_S.tolist() == [1, 2, 3, 4, 5]
    assert tree.positions_S.tolist() == [0, 1, 2, 3, 2]
    assert tree.ends_S.tolist() == [5, 5, 4, 4, 5]
    assert tree.sources_U.tolist() == [1, 2, 1] and tree.targets_U.tolist() == [3, 4, 5]
    assert tree.index_BA.tolist() == [[0, 1], [2, 0]] and tree.mask_BA.tolist() == [[True, True], [True, False]]
    assert tree.last_B.tolist() == [3, 4]


def test_an_episode_that_is_the_beginning_of_another_shares_all_its_nodes():
    tree = token_tree([episode([([1], [2]), ([3], [4])]), episode([([1], [2])])])
    assert tree.ids_S.tolist() == [1, 2, 3, 4] and tree.last_B.tolist() == [3, 1]


def test_the_same_token_as_observation_and_as_action_is_one_node_and_one_target():
    tree = token_tree([episode([([1, 2], [3])]), episode([([1], [2, 3])])])
    assert tree.ids_S.tolist() == [1, 2, 3]
    assert tree.index_BA.tolist() == [[0, 0], [1, 0]] and tree.sources_U.tolist() == [1, 0]


def test_a_tree_of_nothing_is_empty():
    tree = token_tree([])
    assert len(tree.ids_S) == len(tree.sources_U) == tree.tokens == 0 and tree.mask_BA.shape == (0, 0)


def test_action_places_are_those_of_the_action_tokens():
    assert episode([([9, 9], [1, 2]), ([9], [3])]).conversations[0].places == [2, 3, 5]


def test_a_turns_reward_stands_on_its_last_action_token_and_none_is_lost():
    episodes = [episode([([1, 2], [3, 4]), ([5], [6, 7, 8])]), episode([([1], [2])])]
    rewards = [TurnRewards.of({"a": [0.25, 1.0], "b": [0.0, -0.5]}), TurnRewards.of({"a": [2.0]})]
    columns = columns_of(episodes, rewards)
    assert columns.rewards_BA.tolist() == [[0, 0.25, 0, 0, 0.5], [2.0, 0, 0, 0, 0]]
    assert columns.mask_BA.tolist() == [[True] * 5, [True, False, False, False, False]]
    assert columns.logprobs_BA.tolist() == [[-0.5] * 5, [-0.5, 0, 0, 0, 0]]
    assert columns.rewards_BA.sum(1).tolist() == [r.total for r in rewards]
    with pytest.raises(ValueError, match="shorter"):
        columns_of(episodes, [rewards[1], rewards[1]])


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 9])
def test_balanced_runs_hold_every_index_once_in_order_and_are_about_equal(parts: int):
    sizes = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    runs = balanced(sizes, parts)
    assert len(runs) == parts and [i for run in runs for i in run] == list(range(len(sizes)))
    assert max(sum(sizes[i] for i in run) for run in runs) <= sum(sizes) / parts + max(sizes)
    assert balanced([], parts) == [[] for _ in range(parts)]


def one_turn(ids: list[int]) -> Episode:
    return episode([(ids[:-1], ids[-1:])])


@settings(max_examples=300, deadline=None)
@given(
    some.lists(some.lists(some.lists(some.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=4), max_size=6),
    some.integers(1, 25),
)
def test_episodes_are_packed_in_order_under_the_budget_and_groups_stay_whole_where_they_fit(
    content: list[list[list[int]]], budget: int
):
    sequences = [sequence for group in content for sequence in group]
    groups = [g for g, group in enumerate(content) for _ in group]

    def distinct(chosen: list[int]) -> int:
        return len({tuple(sequences[i][:n]) for i in chosen for n in range(1, len(sequences[i]) + 1)})

    runs = packed([one_turn(sequence) for sequence in sequences], groups, budget)
    assert [i for run in runs for i in run] == list(range(len(sequences))) and all(runs)
    for run in runs:
        assert distinct(run) <= budget or len(run) == 1
    whole = []
    for g in range(len(content)):
        members = [i for i in range(len(sequences)) if groups[i] == g]
        whole.append(distinct(members) <= budget)
        if whole[g]:
            assert sum(bool(set(members) & set(run)) for run in runs) == 1
    for first, second in pairwise(runs):  # greedy: what comes next did not fit any more
        group = [i for i in second if groups[i] == groups[second[0]]]
        assert distinct(first + (group if whole[groups[second[0]]] else group[:1])) > budget


def test_packing_counts_what_is_shared_once():
    #        group 0: 1 2 3 | 1 2 4      group 1: 1 2 3 | 5        group 2: 6 7
    sequences = [one_turn(ids) for ids in ([1, 2, 3], [1, 2, 4], [1, 2, 3], [5], [6, 7])]
    groups = [0, 0, 1, 1, 2]
    assert packed(sequences, groups, 7) == [[0, 1, 2, 3, 4]]  # 1 2 3, 4, 5, 6 7
    assert packed(sequences, groups, 6) == [[0, 1, 2, 3], [4]]
    assert packed(sequences, groups, 4) == [[0, 1], [2, 3], [4]]  # 4 tokens, 4, 2
    assert packed(sequences, groups, 3) == [[0], [1], [2], [3, 4]]  # no group but the last one fits
    assert packed(sequences, groups, 1) == [[0], [1], [2], [3], [4]]
    assert packed([], [], 5) == []
    slid = episode([([1, 2], [3]), ([4], [5]), ([6], [7])], window=[1, 1, 2])  # 1 2 3 4 5, and 6 7 after the 3
    assert packed([slid, one_turn([1, 2])], [0, 1], 7) == [[0, 1]]
    assert packed([slid, one_turn([1, 2])], [0, 1], 6) == [[0], [1]]


def credit(episodes: list[Episode], zero: tuple[int, ...] = (), groups: tuple[int, ...] = ()) -> Credited:
    """Columns whose values say where they belong: 100 b + a."""
    columns = columns_of(episodes, [TurnRewards.of({"r": [1.0] * len(e.turns)}) for e in episodes])
    count, width = columns.mask_BA.shape
    place_BA = torch.where(columns.mask_BA, 100.0 * torch.arange(1, count + 1)[:, None] + torch.arange(width), 0.0)
    columns = replace(columns, logprobs_BA=-place_BA)
    advantages_BA = place_BA.clone()
    advantages_BA[list(zero)] = 0.0
    group_B = torch.tensor(groups or range(count))
    made = (advantages_BA, place_BA + 0.25, place_BA + 0.5, place_BA + 0.6, place_BA + 0.75, group_B, 3)
    return Credited(tuple(episodes), columns, *made)


def rows_of(batch: TokenBatch) -> list[int]:
    """Which episodes are in it, read from their values."""
    return [int(row[0] / 100) - 1 for row in -batch.old_logprobs_BA]


@WINDOWS
@pytest.mark.parametrize("per_episode", [False, True])
@pytest.mark.parametrize(("minibatches", "budget"), [(1, 1000), (1, 20), (2, 16), (4, 1000), (3, 1)])
def test_every_episode_is_in_exactly_one_part_with_its_own_values(
    minibatches: int, budget: int, per_episode: bool, windows: bool
):
    episodes = forest(3, episodes=10, turns=5 if windows else 3, windows=windows)
    credited = credit(episodes)
    order = [4, 5, 6, 0, 1, 9, 8, 7, 3, 2]
    found = list(batches(credited, order, minibatches, budget, per_episode, skip_zero=False))
    assert len(found) == minibatches and all(minibatch.policy_version == 3 for minibatch in found)
    assert [b for minibatch in found for batch in minibatch.parts for b in rows_of(batch)] == order
    parts = [batch for minibatch in found for batch in minibatch.parts]
    assert all(len(part.tree.ids_S) <= budget or len(part.weights_BA) == 1 for part in parts)
    assert windows or budget == 1 or max(len(part.tree.ids_S) for part in parts) <= budget  # none alone is above it
    assert (len(parts) > minibatches) is (budget < 1000)
    for minibatch in found:
        rows = [b for batch in minibatch.parts for b in rows_of(batch)]
        weights = token_weights(credited.columns.mask_BA[rows], per_episode)
        assert sum(float(batch.weights_BA.sum()) for batch in minibatch.parts) == pytest.approx(1, abs=1e-6)
        for batch in minibatch.parts:
            assert batch.policy_version == 3 and batch.tree.mask_BA.shape == batch.weights_BA.shape
            for row, b in enumerate(rows_of(batch)):
                width = sum(len(turn.action_ids) for turn in episodes[b].turns)
                for column, kept in (
                    (credited.columns.logprobs_BA[b], batch.old_logprobs_BA),
                    (credited.advantages_BA[b], batch.advantages_BA),
                    (credited.returns_BA[b], batch.returns_BA),
                    (credited.values_BA[b], batch.values_BA),
                    (credited.own_logprobs_BA[b], batch.own_logprobs_BA),
                    (credited.ref_logprobs_BA[b], batch.ref_logprobs_BA),
                    (weights[rows.index(b)], batch.weights_BA),
                ):
                    assert kept[row, :width].tolist() == column[:width].tolist()
                assert spelled(batch.tree, int(batch.tree.last_B[row])) == episodes[b].token_ids


def test_episodes_without_advantage_are_left_out_and_the_others_weigh_what_they_did():
    episodes = forest(5, episodes=8)
    everything = credit(episodes, zero=(1, 4, 5))
    order = list(range(8))
    whole = [w for m in batches(everything, order, 2, 20, False, False) for batch in m.parts for w in weighed(batch)]
    kept = [w for m in batches(everything, order, 2, 20, False, True) for batch in m.parts for w in weighed(batch)]
    assert [b for b, _ in kept] == [0, 2, 3, 6, 7]
    assert kept == [(b, weights) for b, weights in whole if b not in (1, 4, 5)]


def weighed(batch: TokenBatch) -> list[tuple[int, list[float]]]:
    rows = [row[row > 0].tolist() for row in batch.weights_BA]
    return list(zip(rows_of(batch), rows, strict=True))


def test_the_number_of_minibatches_is_fixed_and_one_without_signal_has_no_parts():
    credited = credit(forest(6, episodes=2), zero=(0, 1))
    for skip_zero in (False, True):
        found = list(batches(credited, [0, 1], 2, 1000, False, skip_zero))
        assert [len(minibatch.parts) for minibatch in found] == ([0, 0] if skip_zero else [1, 1])


def test_a_group_is_in_one_part_where_it_fits():
    credited = credit(forest(7, episodes=6), groups=(4, 4, 4, 9, 9, 9))
    sizes = [distinct_tokens([e.token_ids for e in credited.episodes[i : i + 3]]) for i in (0, 3)]
    (minibatch,) = batches(credited, range(6), 1, max(sizes), False, False)
    assert [rows_of(batch) for batch in minibatch.parts] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("per_episode", [False, True])
def test_a_ranks_share_is_of_all_its_episodes_those_without_advantage_included(per_episode: bool):
    episodes = forest(5, episodes=8)
    credited = credit(episodes, zero=(1, 4, 5))
    asked: list[float] = []

    def share(count: float) -> float:
        asked.append(count)
        return 0.25

    (scaled,) = batches(credited, range(8), 1, 1000, per_episode, True, share)
    (plain,) = batches(credited, range(8), 1, 1000, per_episode, True)
    assert asked == [8.0 if per_episode else sum(len(t.action_ids) for e in episodes for t in e.turns)]
    assert torch.equal(scaled.parts[0].weights_BA, 0.25 * plain.parts[0].weights_BA)
