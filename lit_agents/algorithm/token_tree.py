"""Token sequences that share beginnings, laid out so that every shared token stands once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from lit_agents.types import Episode, TokenTree


@dataclass
class _Growing:
    """A forest in depth-first order while sequences are added in lexicographic order."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    """Nodes of the sequence added last, from its first token."""

    def add(self, sequence: Sequence[int]) -> list[int]:
        """Nodes of the sequence, one per token."""
        shared = _shared([self.ids[node] for node in self.path], sequence)
        self.close(shared)
        for token in sequence[shared:]:
            self.path.append(len(self.ids))
            self.ids.append(token)
            self.positions.append(len(self.path) - 1)
            self.ends.append(0)
        return list(self.path)

    def close(self, depth: int) -> None:
        """Nothing more will be added below this depth of the path."""
        for node in self.path[depth:]:
            self.ends[node] = len(self.ids)
        del self.path[depth:]


def distinct_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """How many nodes the tries of these sequences have."""
    total, before = 0, list[int]()
    for sequence in sorted(map(list, sequences)):
        total, before = total + len(sequence) - _shared(before, sequence), sequence
    return total


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def token_tree(episodes: Sequence[Episode]) -> TokenTree:
    """Every distinct token of the episodes once; sorted, so that all that begins alike stands together."""
    growing = _Growing()
    talks = [(b, talk) for b, episode in enumerate(episodes) for talk in episode.conversations]
    paths: dict[int, list[int]] = {}
    for t in sorted(range(len(talks)), key=lambda t: talks[t][1].ids):
        paths[t] = growing.add(talks[t][1].ids)
    growing.close(0)
    pairs: list[list[tuple[int, int]]] = [[] for _ in episodes]  # of each action token: the node before it, and itself
    last = [0] * len(episodes)
    for t, (b, talk) in enumerate(talks):
        pairs[b] += [(paths[t][place - 1], talk.ids[place]) for place in talk.places]
        last[b] = paths[t][-1]
    width = max(map(len, pairs), default=0)
    index = torch.zeros(len(episodes), width, dtype=torch.long)
    mask = torch.zeros(len(episodes), width, dtype=torch.bool)
    seen: dict[tuple[int, int], int] = {}
    for b, own in enumerate(pairs):
        index[b, : len(own)] = torch.tensor([seen.setdefault(pair, len(seen)) for pair in own], dtype=torch.long)
        mask[b, : len(own)] = True
    sources, targets = zip(*seen, strict=True) if seen else ((), ())
    return TokenTree(
        ids_S=torch.tensor(growing.ids, dtype=torch.long),
        positions_S=torch.tensor(growing.positions, dtype=torch.long),
        ends_S=torch.tensor(growing.ends, dtype=torch.long),
        sources_U=torch.tensor(sources, dtype=torch.long),
        targets_U=torch.tensor(targets, dtype=torch.long),
        index_BA=index,
        mask_BA=mask,
        last_B=torch.tensor(last, dtype=torch.long),
        tokens=sum(len(talk.ids) for _, talk in talks),
    )
