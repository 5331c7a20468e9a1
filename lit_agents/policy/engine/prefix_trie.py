"""Which tokens have been computed: all conversations in one trie, so that what begins alike is held once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
"""Numbers of trie nodes, which are also their places in the KV cache."""


class PrefixTrie:
    """Conversations as paths of nodes, one node per token. A node lives as long as a conversation goes through it.

    Args:
        sessions: how many conversations there may be.
        context: tokens a conversation may have, so ``sessions * context`` nodes always suffice.
    """

    def __init__(self, sessions: int, context: int) -> None:
        self._paths = np.zeros((sessions, context), dtype=np.int64)
        self._ids: list[list[int]] = [[] for _ in range(sessions)]
        self._children: dict[tuple[int, int], int] = {}  # (parent or -1, token) -> node
        self._entry: list[tuple[int, int]] = []  # the key of each node in there
        self._users: list[int] = []
        self._free: list[
            int
        ] = []  # nodes that were given back; they are taken first, so that no more memory is touched

    def ids(self, session: int) -> list[int]:
        """The tokens of a conversation that are in the trie."""
        return self._ids[session]

    def path(self, session: int) -> Places:
        """Their nodes, a view."""
        return self._paths[session, : len(self._ids[session])]

    def append(self, session: int, token: int) -> bool:
        """Continue a conversation by a token; whether that made a node, or found one that another conversation made.

        Raises:
            IndexError: the conversation is longer than the context.
        """
        ids = self._ids[session]
        if len(ids) == self._paths.shape[1]:
            raise IndexError(f"conversation {session} is longer than {len(ids)} tokens")
        key = (int(self._paths[session, len(ids) - 1]) if ids else -1, token)
        node = self._children.get(key, -1)
        made = node < 0
        if made:
            node = self._new(key)
        self._paths[session, len(ids)] = node
        self._users[node] += 1
        ids.append(token)
        return made

    def _new(self, key: tuple[int, int]) -> int:
        if self._free:
            node = self._free.pop()
            self._entry[node] = key
        else:
            node = len(self._users)
            self._entry.append(key)
            self._users.append(0)
        self._children[key] = node
        return node

    def rewind(self, session: int, length: int) -> None:
        """Keep a conversation's first tokens, 0 if it is over; what no other one has in common with the rest is free."""
        for node in self.path(session)[length:].tolist():
            self._users[node] -= 1
            if not self._users[node]:
                del self._children[self._entry[node]]
                self._free.append(node)
        self._ids[session] = self._ids[session][:length]


def common_prefix(one: Places, other: Places) -> int:
    """How many nodes two paths share."""
    shorter = min(len(one), len(other))
    different = one[:shorter] != other[:shorter]
    return int(different.argmax()) if different.any() else shorter
