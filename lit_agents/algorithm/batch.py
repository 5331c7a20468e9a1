"""From finished episodes to what the trainer reads: columns to credit, then minibatches in parts to train on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from lit_agents.algorithm.losses import token_weights
from lit_agents.algorithm.token_tree import distinct_tokens, token_tree
from lit_agents.errors import BadInput
from lit_agents.types import Episode, Minibatch, TokenBatch, TurnRewards


@dataclass(frozen=True)
class Columns:
    """One value per action token of each episode, (B, A), 0 on padding."""

    mask_BA: Tensor
    logprobs_BA: Tensor
    rewards_BA: Tensor


@dataclass(frozen=True)
class Credited:
    """Everything about an iteration's episodes that training needs."""

    episodes: tuple[Episode, ...]
    columns: Columns
    advantages_BA: Tensor
    returns_BA: Tensor
    values_BA: Tensor
    own_logprobs_BA: Tensor
    ref_logprobs_BA: Tensor
    group_B: Tensor
    """Number of each episode's group."""
    policy_version: int


def columns_of(episodes: Sequence[Episode], rewards: Sequence[TurnRewards]) -> Columns:
    """A turn's reward stands on its last action token (docs/formulas.md, 1), so no reward can be lost to a mask.

    Raises:
        ValueError: rewards that do not fit their episode's turns.
        BadInput: a reward that is no finite number.
    """
    width = max((sum(len(t.action_ids) for t in e.turns) for e in episodes), default=0)
    mask, logprobs, values = (torch.zeros(len(episodes), width) for _ in range(3))
    for b, (episode, reward) in enumerate(zip(episodes, rewards, strict=True)):
        place = 0
        if not all(map(math.isfinite, reward.values)):
            reason = f"it gave {reward.values} for task {episode.task.id}, which is no finite number."
            raise BadInput("data.reward", reason, "Mend the reward, or the scores of the environment.")
        for turn, value in zip(episode.turns, reward.values, strict=True):
            stop = place + len(turn.action_ids)
            mask[b, place:stop] = 1
            if turn.action_logprobs:
                logprobs[b, place:stop] = torch.tensor(turn.action_logprobs)
            values[b, stop - 1] += value
            place = stop
    return Columns(mask.bool(), logprobs, values)


def balanced(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Indices in ``parts`` runs of neighbours (so that groups stay together) of about equal total size; some may be empty."""
    total, running = sum(sizes), 0
    runs: list[list[int]] = [[] for _ in range(parts)]
    for i, size in enumerate(sizes):
        middle = running + size / 2
        runs[min(parts - 1, int(middle * parts / max(1, total)))].append(i)
        running += size
    return runs


def packed(episodes: Sequence[Episode], groups: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in runs of neighbours, as few as a greedy hand makes, each of at most ``budget`` distinct tokens.

    A group stays in one piece, so that its members share their beginning, unless it alone is above the budget. An episode
    that alone is above it is a run of its own.

    Args:
        groups: number of each episode's group; the members of a group are neighbours.
    """
    talks = [[talk.ids for talk in episode.conversations] for episode in episodes]

    def fits(run: list[int]) -> bool:
        return distinct_tokens([ids for i in run for ids in talks[i]]) <= budget

    runs: list[list[int]] = []
    for _, members in groupby(range(len(episodes)), key=groups.__getitem__):
        group = list(members)
        for unit in [group] if fits(group) else [[i] for i in group]:
            if runs and fits(runs[-1] + unit):
                runs[-1] += unit
            else:
                runs.append(unit)
    return runs


def batches(
    credited: Credited,
    order: Sequence[int],
    minibatches: int,
    budget: int,
    per_episode: bool,
    skip_zero: bool,
    share: Callable[[float], float] = lambda count: 1.0,
) -> Iterator[Minibatch]:
    """One pass: as many minibatches as asked for, their parts as in `packed`.

    Args:
        order: the episodes, neighbours kept together.
        budget: distinct tokens a part may have.
        per_episode: see `token_weights`.
        skip_zero: leave out episodes all of whose advantages are 0; the others' weights do not change by it.
        share: from the tokens (or episodes, if those count the same) of a minibatch, those left out included, to what its
            weights sum to: how ranks agree on one mean.
    """
    episodes, groups = credited.episodes, credited.group_B.tolist()
    for chosen in balanced([sum(len(talk.ids) for talk in episodes[b].conversations) for b in order], minibatches):
        rows = [order[i] for i in chosen]
        mask_BA = credited.columns.mask_BA[rows]
        weights_BA = token_weights(mask_BA, per_episode) * share(float(len(rows) if per_episode else mask_BA.sum()))
        weight_of = dict(zip(rows, weights_BA, strict=True))
        if skip_zero:
            rows = [b for b in rows if bool(credited.advantages_BA[b].any())]
        runs = packed([episodes[b] for b in rows], [groups[b] for b in rows], budget)
        parts = tuple(_batch(credited, [rows[i] for i in run], weight_of) for run in runs)
        yield Minibatch(parts, credited.policy_version)


def _batch(credited: Credited, rows: list[int], weight_of: dict[int, Tensor]) -> TokenBatch:
    tree = token_tree([credited.episodes[b] for b in rows])
    width = tree.mask_BA.shape[1]
    weights = torch.stack([weight_of[b] for b in rows])

    def cut(column_BA: Tensor) -> Tensor:
        return column_BA[rows][:, :width]

    return TokenBatch(
        tree=tree,
        weights_BA=weights[:, :width],
        old_logprobs_BA=cut(credited.columns.logprobs_BA),
        own_logprobs_BA=cut(credited.own_logprobs_BA),
        ref_logprobs_BA=cut(credited.ref_logprobs_BA),
        advantages_BA=cut(credited.advantages_BA),
        returns_BA=cut(credited.returns_BA),
        values_BA=cut(credited.values_BA),
        policy_version=credited.policy_version,
    )
