"""The engine that is always there: the policy's own transformers model, in this process, weights shared with the trainer.

All conversations are one trie of tokens, so a beginning that several share is computed, stored and read once, as long as one
of them goes on: the prompt of a group, and the words its members still have in common. A conversation that has finished its
action leaves the batch. What is computed together follows from the requests alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.base import Engine, EngineCost, Request, Sampled
from lit_agents.policy.engine.kv_cache import QUERIES, Block, CachedAttention, KVCache, causal_blocks, newest_block
from lit_agents.policy.engine.prefix_trie import PrefixTrie
from lit_agents.policy.loading import kv_heads
from lit_agents.policy.sampling import Sampling, draw

Row = tuple[int, int]
"""A token to be computed: its session, and its place in the conversation."""


class TransformersEngine(Engine):
    """See the module.

    Args:
        prefill_tokens: at most this many new tokens go through the model at once; bounds memory, changes nothing else.
    """

    def __init__(self, prefill_tokens: int = 4096) -> None:
        self.prefill_tokens = prefill_tokens
        self.cost = EngineCost()

    def attach(self, policy: CausalLMPolicy, sessions: int, context: int) -> None:
        """See `Engine`."""
        self._policy, self._sessions, self._context = policy, sessions, context
        self._trie = PrefixTrie(sessions, context)
        if policy.takes_trees:
            self._folds = policy.config.num_attention_heads // kv_heads(policy.config)
            self._cache = self._make_cache()

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
            self._trie.release(session)

    def refresh(self) -> None:
        """See `Engine`."""
        self.release(range(self._sessions))
        if self._policy.takes_trees and self._cache.keys.device != self._policy.device:
            self._cache = self._make_cache()  # Lightning moves the weights after it has set up the data

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sampled]:
        """See `Engine`.

        Raises:
            RuntimeError: a request does not continue what is known of its conversation.
        """
        for request in requests:
            known = self._trie.ids(request.session)
            if list(request.ids[: len(known)]) != known or len(known) == len(request.ids):
                raise RuntimeError(f"conversation {request.session} does not continue what the engine has of it")
        try:
            with self._policy.precision():
                logits, talks = self._prefill(requests, sampling.temperature or 1.0)
                return self._decode(requests, logits, talks, sampling)
        except BaseException:  # some tokens may be in the trie that were never computed
            self.release(range(self._sessions))
            raise

    def _prefill(self, requests: Sequence[Request], temperature: float) -> tuple[Tensor, list[list[int]]]:
        """Compute what is new; (R, V) logits of the next token, and which requests each row of them is for."""
        rows: list[Row] = []
        ends: list[int] = []  # where in there the last token of each talk is
        talks: dict[int, list[int]] = {}  # last node -> requests: what is equal is one
        for i in sorted(range(len(requests)), key=lambda i: requests[i].ids):  # the trie's depth-first order
            session, made = requests[i].session, self._extend(requests[i])
            length, last = len(requests[i].ids), int(self._trie.path(session)[-1])
            if last not in talks:
                made = max(made, 1)  # all of it may be known from an earlier call, but not what comes next
                ends.append(len(rows) + made - 1)
            rows += [(session, place) for place in range(length - made, length)]
            talks.setdefault(last, []).append(i)
        leaders = [requests[talk[0]].session for talk in talks.values()]
        if not self._policy.takes_trees:
            return self._policy.logits(self._read_again(leaders), temperature), list(talks.values())
        hidden = []
        for start in range(0, len(rows), self.prefill_tokens):
            piece = rows[start : start + self.prefill_tokens]
            out = self._forward(piece, self._blocks(piece))
            hidden.append(out[[end - start for end in ends if start <= end < start + len(piece)]])
        return self._policy.logits(torch.cat(hidden), temperature), list(talks.values())

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

    def _newest(self, sessions: Sequence[int]) -> Tensor:
        """(R, H) hidden states of tokens just sampled."""
        if not self._policy.takes_trees:
            return self._read_again(sessions)
        paths = [self._trie.path(session) for session in sessions]
        rows = [(session, len(path) - 1) for session, path in zip(sessions, paths, strict=True)]
        return self._forward(rows, [newest_block(paths)])

    def _read_again(self, sessions: Sequence[int]) -> Tensor:
        """(R, H) hidden states of the last tokens, for a model that takes no trees and so shares and keeps nothing."""
        talks = [self._trie.ids(session) for session in sessions]
        ends = torch.tensor([len(talk) - 1 for talk in talks], device=self._policy.device)
        self.cost.computed_tokens += sum(map(len, talks))
        return self._policy.hidden_of_rows(talks)[torch.arange(len(talks), device=ends.device), ends]

    def _decode(
        self, requests: Sequence[Request], logits: Tensor, talks: list[list[int]], sampling: Sampling
    ) -> list[Sampled]:
        """Sample until every action has its end-of-turn token or is as long as it may be."""
        end = self._policy.chat.end_id
        tokens: list[list[int]] = [[] for _ in requests]
        logprobs: list[list[float]] = [[] for _ in requests]
        while True:
            drawn = draw(logits, sampling, [[requests[i].stream for i in talk] for talk in talks])
            branches: list[list[int]] = []
            for talk, choices in zip(talks, drawn, strict=True):
                ways: dict[int, list[int]] = {}
                for i, (token, score) in zip(talk, choices, strict=True):
                    tokens[i].append(token)
                    logprobs[i].append(score)
                    if token != end and len(tokens[i]) < sampling.max_tokens:
                        self._trie.append(requests[i].session, token)
                        ways.setdefault(token, []).append(i)
                branches += ways.values()
            talks = branches
            if not talks:
                break
            hidden = self._newest([requests[talk[0]].session for talk in talks])
            logits = self._policy.logits(hidden, sampling.temperature or 1.0)
        self.cost.sampled_tokens += sum(map(len, tokens))
        return [Sampled(tuple(t), tuple(p), t[-1] == end) for t, p in zip(tokens, logprobs, strict=True)]
