"""A measured rate and everything it depends on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lit_agents.environment.base import TextEnvironment
from lit_agents.evaluation.metrics import EpisodeMetrics
from lit_agents.evaluation.stats.pass_at_k import pass_at, tally
from lit_agents.policy.sampling import Sampling
from lit_agents.rollout.schedule import Limits
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
    environment: Mapping[str, str]
    """Fingerprint: the class, what it says of itself (versions, grammar of commands, whether admissible ones are shown), and
    the hash over the ids and files of the tasks."""
    window: Mapping[str, int] | None = None
    """`lit_agents.rollout.schedule.Window`; None keeps every turn in sight."""

    @property
    def sentence(self) -> str:
        """For the title of a table; sampling that is not said to be truncated is not."""
        s, limits = self.sampling, f"{self.turn_limit} turns of {self.sampling['max_tokens']} tokens"
        how = f"temperature {s['temperature']:g}"
        how += f", top_p {s['top_p']:g}" if s["top_p"] < 1 else ""
        how += f", top_k {s['top_k']}" if s["top_k"] else ""
        seen = f" (at most {self.window['turns']} and the first in sight)" if self.window else ""
        return f"{self.tasks}, {self.split} split, {limits}{seen}, {how}, seed {self.seed}"

    def same_as(self, other: Conditions) -> bool:
        """Whether two measurements of one policy would be the same one: their seeds too are equal, stored or not."""
        first, second = (json.loads(json.dumps(asdict(conditions))) for conditions in (self, other))
        return bool(first == second)

    @staticmethod
    def of(
        environment: TextEnvironment, spec: str, tasks: Sequence[Task], limits: Limits, sampling: Sampling, seed: int
    ) -> Conditions:
        """The conditions of an evaluation on these tasks."""
        kind = type(environment)
        files = "\n".join(f"{task.family} {task.id} {task.sha256}" for task in tasks)
        found = {"class": f"{kind.__module__}.{kind.__qualname__}", **environment.fingerprint()}
        found |= {"tasks": str(len(tasks)), "task_files": hashlib.sha256(files.encode()).hexdigest()[:16]}
        window = asdict(limits.window) if limits.window else None
        return Conditions(spec, tasks[0].split, limits.turns, limits.context, asdict(sampling), seed, found, window)


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """In what two stored `Conditions` differ, apart from the seed; one sentence each."""
    flat = [_flat(conditions) for conditions in (first, second)]
    names = sorted(name for name in flat[0] | flat[1] if flat[0].get(name) != flat[1].get(name))
    return [f"{name} is {flat[0].get(name)}, not {flat[1].get(name)}" for name in names if name != "seed"]


def _flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return flat


@dataclass(frozen=True)
class Result:
    """One row of a table."""

    rate: float
    """Of all episodes; avg@k where each task was played k times."""
    n: int
    """Episodes."""
    low: float
    high: float
    """Wilson, 95 %; see `rate_interval` for several episodes per task."""
    turns: float
    """Mean per episode."""
    failures: int
    """Episodes the environment broke; not in n."""
    conditions: Conditions
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Everything else `EpisodeMetrics` knows."""
    by_task: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Episodes won and played of each task."""

    @staticmethod
    def of(episodes: Sequence[Episode], rewards: Sequence[TurnRewards], conditions: Conditions) -> Result:
        """Measure."""
        metrics = EpisodeMetrics()
        metrics.update(episodes, rewards)
        numbers, counts = metrics.compute(), tally(episodes)
        low, high = numbers["success_low"], numbers["success_high"]
        return Result(
            numbers["success"], int(numbers["n"]), low, high, numbers["turns"], int(numbers["failures"]), conditions,
            {k: v for k, v in numbers.items() if not math.isnan(v)}, counts,
        )  # fmt: skip

    @property
    def samples(self) -> int:
        """Episodes of the task that has most."""
        return max((n for _, n in self.by_task.values()), default=0)

    def pass_at(self) -> dict[int, tuple[float, float, float]]:
        """pass@k with its interval, for k = 1, 2, 4 ... up to the number of samples."""
        ks = [2**i for i in range(self.samples.bit_length()) if 2**i <= self.samples]
        return {k: pass_at(self.by_task, k) for k in dict.fromkeys([*ks, self.samples]) if k}

    def as_json(self) -> dict[str, Any]:
        """For ``summary.json``; null where there is no number, which JSON has no other word for."""
        return {name: None if value != value else value for name, value in asdict(self).items()}  # nan is not itself

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Result:
        """The inverse.

        Raises:
            KeyError, TypeError: it is none.
        """
        by_task = {task: (int(won), int(n)) for task, (won, n) in content["by_task"].items()}
        found: dict[str, Any] = {name: math.nan if value is None else value for name, value in content.items()}
        return Result(**{**found, "conditions": Conditions(**content["conditions"]), "by_task": by_task})

    def row(self) -> list[str]:
        """For a table a person reads: success, n, interval, turns."""
        return [f"{self.rate:.3f}", str(self.n), f"{self.low:.3f} - {self.high:.3f}", f"{self.turns:.2f}"]
