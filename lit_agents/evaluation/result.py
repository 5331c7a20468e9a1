"""A measured rate and everything it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lit_agents.environment.base import TextEnvironment
from lit_agents.evaluation.metrics import EpisodeMetrics
from lit_agents.policy.sampling import Sampling
from lit_agents.rollout.limits import Limits
from lit_agents.types import Episode, Task, TurnRewards


@dataclass(frozen=True)
class Conditions:
    """What two rates must share to be compared."""

    tasks: str
    split: str
    turn_limit: int
    context_limit: int
    sampling: Mapping[str, Any]
    seed: int
    environment: str
    """Fingerprint: package versions, what is shown, and the hashes of the task files."""

    @property
    def sentence(self) -> str:
        """For the title of a table; sampling that is not said to be truncated is not."""
        s, limits = self.sampling, f"{self.turn_limit} turns of {self.sampling['max_tokens']} tokens"
        how = f"temperature {s['temperature']:g}"
        how += f", top_p {s['top_p']:g}" if s["top_p"] < 1 else ""
        how += f", top_k {s['top_k']}" if s["top_k"] else ""
        return f"{self.tasks}, {self.split} split, {limits}, {how}, seed {self.seed}"

    @staticmethod
    def of(
        environment: TextEnvironment, spec: str, tasks: Sequence[Task], limits: Limits, sampling: Sampling, seed: int
    ) -> Conditions:
        """The conditions of an evaluation on these tasks."""
        parts = sorted(environment.fingerprint().items()) + [(t.id, t.sha256) for t in tasks]
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        return Conditions(spec, tasks[0].split, limits.turns, limits.context, asdict(sampling), seed, digest)


@dataclass(frozen=True)
class Result:
    """One row of a table."""

    rate: float
    n: int
    low: float
    high: float
    """Wilson, 95 %."""
    turns: float
    """Mean per episode."""
    failures: int
    """Episodes the environment broke; not in n."""
    conditions: Conditions
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Everything else `EpisodeMetrics` knows."""

    @staticmethod
    def of(episodes: Sequence[Episode], rewards: Sequence[TurnRewards], conditions: Conditions) -> Result:
        """Measure."""
        metrics = EpisodeMetrics()
        metrics.update(episodes, rewards)
        numbers = metrics.compute()
        return Result(
            numbers["success"], int(numbers["n"]), numbers["success_low"], numbers["success_high"], numbers["turns"],
            int(numbers["failures"]), conditions, {k: v for k, v in numbers.items() if v == v},
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """For ``summary.json``."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Result:
        """The inverse."""
        return Result(**{**content, "conditions": Conditions(**content["conditions"])})

    def row(self) -> list[str]:
        """For a table a person reads: success, n, interval, turns."""
        return [f"{self.rate:.3f}", str(self.n), f"{self.low:.3f} - {self.high:.3f}", f"{self.turns:.2f}"]
