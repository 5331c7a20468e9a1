"""The engine that is always there: the policy's own transformers model, in this process, weights shared with the trainer.

All conversations are one trie of tokens, so a beginning that several share is computed, stored and read once, as long as one
of them goes on: the prompt of a group, and the words its members still have in common. A conversation that has finished its
action leaves the batch. The last few of a turn are not waited for: a step with two conversations takes nearly as long as one
with twenty, so they go on beside the next turn of the others. What is computed together follows from the requests alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.base import Engine, EngineCost, Request, Sampled
from lit_agents.policy.engine.kv_cache import QUERIES, Block, CachedAttention, KVCache, causal_blocks, newest_block
from lit_agents.policy.engine.prefix_trie import PrefixTrie
from lit_agents.policy.sampling import Sampling, draw
from lit_agents.policy.tree_check import kv_heads

Row = tuple[int, int]
"""A token to be computed: its session, and its place in the conversation."""


@dataclass
class _Action:
    """One that is under way."""

    stream: np.random.Generator
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class TransformersEngine(Engine):
    """See the module.

    Args:
        prefill_tokens: at most this many new tokens go through the model at once; bounds memory, changes nothing else.
        stragglers: share of the actions under way that `generate` does not wait for. 0 finishes every turn before the next.

    Raises:
        BadInput: no token at once, or a share that is none.
    """

    def __init__(self, prefill_tokens: int = 4096, stragglers: float = 0.2) -> None:
        if prefill_tokens < 1:
            raise BadInput("data.engine.prefill_tokens", f"{prefill_tokens} is not above 0.", "Use 4096.")
        if not 0 <= stragglers < 1:
            reason = f"{stragglers} is not at least 0 and below 1."
            raise BadInput("data.engine.stragglers", reason, "Use 0.2, or 0 to wait for all.")
        self.prefill_tokens, self.stragglers = prefill_tokens, stragglers
        self.cost = EngineCost()
        self._sampling = Sampling()  # of the actions under way

    def attach(self, policy: CausalLMPolicy, sessions: int, context: int) -> None:
        """See `Engine`."""
        self._policy, self._sessions, self._context = policy, sessions, context
        self._forget()
        if policy.takes_trees:
            self._folds = policy.config.num_attention_heads // kv_heads(policy.config)
            self._cache = self._make_cache()

    def _forget(self) -> None:
        """Whatever is in the cache, nobody knows of it."""
        self._trie = PrefixTrie(self._sessions, self._context)
        self._open: dict[int, _Action] = {}  # by session; of their tokens only the newest has not been computed

    def _make_cache(self) -> KVCache:
        """Where the weights are."""
        c, like = self._policy.config, torch.empty(0, dtype=self._policy.dtype, device=self._policy.device)
        width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        cache = KVCache(c.num_hidden_layers, kv_heads(c), self._sessions * self._context, width, like)
        self.most_bytes = cache.nbytes
        return cache

    def release(self, sessions: Iterable[int]) -> None:
        """See `Engine`."""
        for session in sessions:
            self.rewind(session, 0)
            self._open.pop(session, None)

    def rewind(self, session: int, length: int) -> None:
        """See `Engine`."""
        self._trie.rewind(session, length)

    def refresh(self) -> None:
        """See `Engine`."""
        self._forget()
        if self._policy.takes_trees and self._cache.keys.device != self._policy.device:
            self._cache = self._make_cache()  # Lightning moves the weights after it has set up the data

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> dict[int, Sampled]:
        """See `Engine`.

        Raises:
            RuntimeError: a request does not continue what is known of its conversation, is made twice, or before the action
                asked for last is complete; or the sampling changes in the middle of actions.
        """
        if len({request.session for request in requests}) < len(requests):
            raise RuntimeError("a conversation is asked for two actions at once")
        if self._open and sampling != self._sampling:
            raise RuntimeError("the sampling changes while actions are under way")
        self._sampling = sampling
        for request in requests:
            known = self._trie.ids(request.session)
            if list(request.ids[: len(known)]) != known or len(known) == len(request.ids):
                raise RuntimeError(f"conversation {request.session} does not continue what the engine has of it")
            if request.session in self._open:
                raise RuntimeError(f"conversation {request.session} has an action under way")
        try:
            with self._policy.precision():
                return self._go_on(requests, sampling)
        except BaseException:  # some tokens may be in the trie that were never computed
            self._forget()
            raise

    def _go_on(self, requests: Sequence[Request], sampling: Sampling) -> dict[int, Sampled]:
        """Sample until no more actions are under way than need not be waited for."""
        new = {r.session: self._extend(r) for r in sorted(requests, key=lambda r: r.ids)}
        self._open |= {r.session: _Action(r.stream) for r in requests}
        left = self.stragglers * len(self._open)
        complete: dict[int, Sampled] = {}
        if self._open:
            logits, talks = self._read(new, sampling)
            complete, talks = self._say(logits, talks, sampling)
        while len(self._open) > left:
            said, talks = self._say(self._step(talks, sampling), talks, sampling)
            complete |= said
        self.cost.sampled_tokens += sum(len(action.ids) for action in complete.values())
        return complete

    def _read(self, new: Mapping[int, int], sampling: Sampling) -> tuple[Tensor, list[list[int]]]:
        """Compute new tokens of requests, and the newest ones of actions under way.

        Args:
            new: how many tokens at its end nobody has computed, by session.
            sampling: for the temperature.

        Returns:
            (R, V) logits of the next token, and which sessions each row of them is for.
        """
        talks: dict[int, list[int]] = {}  # last node -> sessions: what is equal is one
        for session in sorted(self._open, key=self._trie.ids):  # the trie's depth-first order
            talks.setdefault(int(self._trie.path(session)[-1]), []).append(session)
        sessions = [talk[0] for talk in talks.values()]
        hidden = self._ends(sessions, new) if self._policy.takes_trees else self._read_again(sessions)
        return self._policy.logits(hidden, sampling.temperature or 1.0), list(talks.values())

    def _ends(self, sessions: Sequence[int], new: Mapping[int, int]) -> Tensor:
        """(R, H) hidden states of the last tokens of conversations of which some are new, in pieces."""
        counts = [max(new.get(session, 0), 1) for session in sessions]  # all may be known, but not what comes next
        order = sorted(range(len(sessions)), key=lambda r: counts[r] > 1)  # what is as long is attended together
        rows: list[Row] = []
        ends: list[int] = []  # where in there the last tokens are, in that order
        for r in order:
            length = len(self._trie.ids(sessions[r]))
            rows += [(sessions[r], place) for place in range(length - counts[r], length)]
            ends.append(len(rows) - 1)
        hidden = []
        for start in range(0, len(rows), self.prefill_tokens):
            piece = rows[start : start + self.prefill_tokens]
            out = self._forward(piece, self._blocks(piece))
            hidden.append(out[[end - start for end in ends if start <= end < start + len(piece)]])
        back = torch.tensor(order, device=self._policy.device).argsort()
        return torch.cat(hidden)[back]

    def _extend(self, request: Request) -> int:
        """Add a request's new tokens to its conversation; how many of them nobody has computed."""
        count = len(self._trie.ids(request.session))
        self.cost.prompt_tokens += len(request.ids) - count
        return sum([self._trie.append(request.session, token) for token in request.ids[count:]])

    def _blocks(self, rows: Sequence[Row]) -> list[Block]:
        """Attention for new tokens in runs: consecutive ones of one conversation."""
        starts = [i for i in range(len(rows)) if i == 0 or rows[i] != (rows[i - 1][0], rows[i - 1][1] + 1)]
        cuts = [cut for a, b in pairwise([*starts, len(rows)]) for cut in range(a, b, QUERIES)]
        ends = [(*rows[stop - 1], stop - first) for first, stop in pairwise([*cuts, len(rows)])]
        return causal_blocks([(self._trie.path(session)[: last + 1], new) for session, last, new in ends])

    def _forward(self, rows: Sequence[Row], blocks: Sequence[Block]) -> Tensor:
        """(S, H) hidden states of tokens whose conversations are in the trie."""
        trie, device = self._trie, self._policy.device
        ids = torch.tensor([trie.ids(session)[place] for session, place in rows], device=device)
        positions = torch.tensor([place for _, place in rows], device=device)
        nodes = [int(trie.path(session)[place]) for session, place in rows]
        self.cost.computed_tokens += len(rows)
        return self._policy.hidden(ids, positions, CachedAttention(self._cache, nodes, blocks, self._folds))

    def _step(self, talks: Sequence[Sequence[int]], sampling: Sampling) -> Tensor:
        """(R, V) logits after the token just sampled in each talk."""
        sessions = [talk[0] for talk in talks]
        if self._policy.takes_trees:
            paths = [self._trie.path(session) for session in sessions]
            rows = [(session, len(path) - 1) for session, path in zip(sessions, paths, strict=True)]
            hidden = self._forward(rows, [newest_block(paths)])
        else:
            hidden = self._read_again(sessions)
        return self._policy.logits(hidden, sampling.temperature or 1.0)

    def _read_again(self, sessions: Sequence[int]) -> Tensor:
        """(R, H) hidden states of the last tokens, for a model that takes no trees and so shares and keeps nothing."""
        talks = [self._trie.ids(session) for session in sessions]
        ends = torch.tensor([len(talk) - 1 for talk in talks], device=self._policy.device)
        self.cost.computed_tokens += sum(map(len, talks))
        return self._policy.hidden_of_rows(talks)[torch.arange(len(talks), device=ends.device), ends]

    def _say(
        self, logits: Tensor, talks: Sequence[Sequence[int]], sampling: Sampling
    ) -> tuple[dict[int, Sampled], list[list[int]]]:
        """One more token of every action: those it completed, and the talks that go on, in the trie's order still."""
        end = self._policy.chat.end_id
        self._policy.refuse_non_finite(logits.amax(-1))  # NaN if any of them is; -inf is a token that has no chance
        drawn = draw(logits, sampling, [[self._open[session].stream for session in talk] for talk in talks])
        complete: dict[int, Sampled] = {}
        branches: list[list[int]] = []
        for talk, choices in zip(talks, drawn, strict=True):
            ways: dict[int, list[int]] = {}
            for session, (token, score) in zip(talk, choices, strict=True):
                action = self._open[session]
                action.ids.append(token)
                action.logprobs.append(score)
                if token == end or len(action.ids) >= sampling.max_tokens:
                    complete[session] = Sampled(tuple(action.ids), tuple(action.logprobs), token == end)
                    del self._open[session]
                else:
                    self._trie.append(session, token)
                    ways.setdefault(token, []).append(session)
            branches += ways.values()
        return complete, branches
