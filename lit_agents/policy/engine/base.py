"""The engine contract: token ids in, sampled token ids and their log-probabilities out.

Every request carries all that is in sight of its conversation; what an engine remembers of earlier turns (KV caches, prefixes) is
its own business and never changes what comes out. Between calls it may hold actions that are half sampled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.sampling import Sampling


@dataclass(frozen=True)
class Request:
    """One action to be sampled."""

    session: int
    """Which conversation; the same number in every turn of an episode, below the number of sessions."""
    ids: tuple[int, ...]
    """Everything before the action."""
    stream: np.random.Generator
    """Where its random numbers come from."""


@dataclass(frozen=True)
class Sampled:
    """One action."""

    ids: tuple[int, ...]
    """Ends with the end-of-turn token, unless it is unfinished."""
    logprobs: tuple[float, ...]
    """One per id, nats, of the distribution drawn from."""
    finished: bool
    """The end-of-turn token was sampled within the limit."""


@dataclass
class EngineCost:
    """What the engine computed so far."""

    prompt_tokens: int = 0
    """Tokens in all requests, had each conversation been read from its start once and continued."""
    computed_tokens: int = 0
    """Tokens that went through the model."""
    sampled_tokens: int = 0
    """Tokens that came out."""


class Engine(ABC):
    """Samples actions for many conversations at once."""

    cost: EngineCost
    most_bytes: int = 0
    """What conversations take at most in the memory of this process's device, besides the weights."""

    @abstractmethod
    def attach(self, policy: CausalLMPolicy, sessions: int, context: int) -> None:
        """Serve this policy: up to ``sessions`` conversations of up to ``context`` tokens at a time."""

    @abstractmethod
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> dict[int, Sampled]:
        """Begin an action for each request, and go on until some are complete.

        Returns:
            Complete actions by session, asked for now or earlier; at least one while any is under way. Later calls return the
            others; they may bring no requests, and must bring the same sampling.
        """

    @abstractmethod
    def release(self, sessions: Iterable[int]) -> None:
        """These conversations are over; an action of theirs that is under way never comes."""

    @abstractmethod
    def rewind(self, session: int, length: int) -> None:
        """Only the first tokens of this conversation, as many as that, begin its next request too."""

    @abstractmethod
    def refresh(self) -> None:
        """The policy's weights have changed: forget everything computed with the old ones, and actions under way."""

    def rest(self) -> None:
        """No action is wanted for a while: give back memory that the trainer can use. The next `generate` takes it again."""
        return

    def close(self) -> None:
        """End every process of its own. It can be attached again."""
        return
