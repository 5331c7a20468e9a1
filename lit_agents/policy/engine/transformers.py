"""The engine that is always there: the policy's own transformers model, in this process, weights shared with the trainer.

Keys and values live across turns in preallocated slots, only new tokens are computed, conversations that are still equal
(the beginning of a group) are computed once and copied, and a conversation that has finished its action leaves the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.base import Engine, EngineCost, Request, Sampled
from lit_agents.policy.engine.kv_cache import DecodeAttention, KVCache, PrefillAttention, Span
from lit_agents.policy.sampling import Sampling, draw


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
        self._policy, self._context = policy, context
        self._folds = policy.config.num_attention_heads // policy.config.num_key_value_heads
        self._cached: list[list[int]] = [[] for _ in range(sessions)]
        self._cache = self._make_cache()

    def _make_cache(self) -> KVCache:
        """Where the weights are."""
        c, like = self._policy.config, torch.empty(0, dtype=self._policy.dtype, device=self._policy.device)
        width = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        cache = KVCache(c.num_hidden_layers, len(self._cached), c.num_key_value_heads, self._context, width, like)
        self.most_bytes = cache.keys.nbytes + cache.values.nbytes
        return cache

    def release(self, sessions: Iterable[int]) -> None:
        """See `Engine`."""
        for session in sessions:
            self._cached[session] = []

    def refresh(self) -> None:
        """See `Engine`."""
        self.release(range(len(self._cached)))
        if self._cache.keys.device != self._policy.device:  # Lightning moves the weights after it has set up the data
            self._cache = self._make_cache()

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Sampled]:
        """See `Engine`."""
        with self._policy.precision():
            logits = self._prefill(requests, sampling.temperature or 1.0)
            return self._decode(requests, logits, sampling)

    def _prefill(self, requests: Sequence[Request], temperature: float) -> Tensor:
        """Bring the cache up to all given tokens; (B, V) logits of the next one."""
        leaders: dict[tuple[int, ...], int] = {}  # equal conversations are computed once
        for i, request in enumerate(requests):
            leaders.setdefault(request.ids, i)
            self.cost.prompt_tokens += len(request.ids) - len(self._cached[request.session])
        pieces: dict[int, Tensor] = {}
        chunk: list[int] = []
        for i in leaders.values():
            if chunk and self._new_tokens(requests, [*chunk, i]) > self.prefill_tokens:
                pieces |= self._read(requests, chunk, temperature)
                chunk = []
            chunk.append(i)
        pieces |= self._read(requests, chunk, temperature)
        for i, request in enumerate(requests):
            leader = leaders[request.ids]
            if leader != i:
                start = len(self._cached[request.session])
                self._cache.copy(requests[leader].session, request.session, start, len(request.ids))
            self._cached[request.session] = list(request.ids)
        return torch.stack([pieces[leaders[request.ids]] for request in requests])

    def _new_tokens(self, requests: Sequence[Request], chosen: Sequence[int]) -> int:
        return sum(len(requests[i].ids) - len(self._cached[requests[i].session]) for i in chosen)

    def _read(self, requests: Sequence[Request], chosen: Sequence[int], temperature: float) -> dict[int, Tensor]:
        """Compute the new tokens of the chosen requests; logits after the last one of each."""
        ids: list[int] = []
        spans = []
        for i in chosen:
            known = self._cached[requests[i].session]
            if list(requests[i].ids[: len(known)]) != known or len(known) == len(requests[i].ids):
                raise RuntimeError(f"conversation {requests[i].session} does not continue what the engine has of it")
            new = requests[i].ids[len(known) :]
            spans.append(Span(requests[i].session, len(known), len(new), len(ids)))
            ids += new
        hidden = self._forward(ids, spans, PrefillAttention(self._cache, spans, self._folds))
        last = torch.tensor([s.offset + s.length - 1 for s in spans], device=hidden.device)
        return dict(zip(chosen, self._policy.logits(hidden[last], temperature), strict=True))

    def _forward(self, ids: list[int], spans: Sequence[Span], attend: PrefillAttention | DecodeAttention) -> Tensor:
        device = self._policy.device
        positions = [p for s in spans for p in range(s.start, s.start + s.length)]
        self.cost.computed_tokens += len(ids)
        return self._policy.hidden(torch.tensor(ids, device=device), torch.tensor(positions, device=device), attend)

    def _decode(self, requests: Sequence[Request], logits: Tensor, sampling: Sampling) -> list[Sampled]:
        """Sample until every action has its end-of-turn token or is as long as it may be."""
        end = self._policy.chat.end_id
        tokens: list[list[int]] = [[] for _ in requests]
        logprobs: list[list[float]] = [[] for _ in requests]
        live = sorted(range(len(requests)), key=lambda i: requests[i].session)  # neighbours in memory, neighbours here
        logits = logits[torch.tensor(live, device=logits.device)]
        while True:
            chosen, scores = draw(logits, sampling, [requests[i].stream for i in live])
            for i, token, score in zip(live, chosen, scores, strict=True):
                tokens[i].append(token)
                logprobs[i].append(score)
            live = [i for i in live if tokens[i][-1] != end and len(tokens[i]) < sampling.max_tokens]
            if not live:
                break
            logits = self._step(requests, live, tokens, sampling.temperature or 1.0)
        self.cost.sampled_tokens += sum(map(len, tokens))
        return [Sampled(tuple(t), tuple(p), t[-1] == end) for t, p in zip(tokens, logprobs, strict=True)]

    def _step(
        self, requests: Sequence[Request], live: Sequence[int], tokens: Sequence[Sequence[int]], temperature: float
    ) -> Tensor:
        """Feed each live conversation its newest token; (live, V) logits of the next one."""
        spans = []
        for offset, i in enumerate(live):
            known = self._cached[requests[i].session]
            spans.append(Span(requests[i].session, len(known), 1, offset))
            known.append(tokens[i][-1])
        hidden = self._forward([tokens[i][-1] for i in live], spans, DecodeAttention(self._cache, spans))
        return self._policy.logits(hidden, temperature)
