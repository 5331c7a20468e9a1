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


def action_places(episode: Episode) -> list[int]:
    """(A,) where in `Episode.token_ids` the action tokens stand."""
    places: list[int] = []
    position = 0
    for turn in episode.turns:
        position += len(turn.observation_ids)
        places += range(position, position + len(turn.action_ids))
        position += len(turn.action_ids)
    return places


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
    sequences = [episode.token_ids for episode in episodes]
    paths: dict[int, list[int]] = {}
    for b in sorted(range(len(sequences)), key=sequences.__getitem__):
        paths[b] = growing.add(sequences[b])
    growing.close(0)
    width = max((len(action_places(e)) for e in episodes), default=0)
    index = torch.zeros(len(episodes), width, dtype=torch.long)
    mask = torch.zeros(len(episodes), width, dtype=torch.bool)
    seen: dict[tuple[int, int], int] = {}
    for b, episode in enumerate(episodes):
        pairs = [(paths[b][place - 1], sequences[b][place]) for place in action_places(episode)]
        index[b, : len(pairs)] = torch.tensor([seen.setdefault(pair, len(seen)) for pair in pairs], dtype=torch.long)
        mask[b, : len(pairs)] = True
    sources, targets = zip(*seen, strict=True) if seen else ((), ())
    return TokenTree(
        ids_S=torch.tensor(growing.ids, dtype=torch.long),
        positions_S=torch.tensor(growing.positions, dtype=torch.long),
        ends_S=torch.tensor(growing.ends, dtype=torch.long),
        sources_U=torch.tensor(sources, dtype=torch.long),
        targets_U=torch.tensor(targets, dtype=torch.long),
        index_BA=index,
        mask_BA=mask,
        last_B=torch.tensor([paths[b][-1] for b in range(len(episodes))], dtype=torch.long),
        tokens=sum(map(len, sequences)),
    )
