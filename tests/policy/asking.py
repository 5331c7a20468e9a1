"""Asking an engine until everybody has answered."""

from __future__ import annotations

from collections.abc import Sequence

from lit_agents.policy.engine.base import Engine, Request, Sampled
from lit_agents.policy.sampling import Sampling


def answers(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> list[Sampled]:
    """An action for each request, in their order."""
    said = engine.generate(requests, sampling)
    while len(said) < len(requests):
        said |= engine.generate([], sampling)
    return [said[request.session] for request in requests]
