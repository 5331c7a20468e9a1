"""Rates with their n and interval, over episodes; environment failures are counted and are in no rate."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_agents.types import Episode, StopReason, TurnRewards

_REASONS = tuple(StopReason)
_SUMS = ("won", "return", "turns", "played", "invalid", "unfinished", "action_tokens")


def wilson(successes: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a rate.

    Args:
        successes: at most ``n``.
        n: number of trials, or of what trials that depend on each other are worth; without any, the interval is (0, 1).
        z: standard normal quantile; 1.96 for 95 %.

    Returns:
        The lower and the upper end, each in [0, 1].

    Raises:
        ValueError: ``successes`` is not between 0 and ``n``.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    rate, spread = successes / n, z * z / n
    centre = rate + spread / 2
    half = z * math.sqrt(rate * (1 - rate) / n + spread / (4 * n))
    # the ends at 0 and n are exact; in floating point they would miss by one bit
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / (1 + spread))
    high = 1.0 if successes == n else min(1.0, (centre + half) / (1 + spread))
    return low, high


def mean_interval(values: Sequence[float], z: float = 1.96) -> tuple[float, float, float]:
    """The mean of independent values, and its interval by the normal approximation; for differences, not for rates.

    Args:
        values: at least one; of one alone the interval is all there is.
        z: standard normal quantile; 1.96 for 95 %.
    """
    mean = statistics.fmean(values)
    half = z * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return mean, mean - half, mean + half


class EpisodeMetrics(Metric):
    """What a set of episodes amounts to. It is given the episodes of all ranks, so there is nothing to synchronise."""

    full_state_update = False
    sums: Tensor
    stops: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.add_state("sums", torch.zeros(len(_SUMS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("stops", torch.zeros(len(_REASONS), dtype=torch.float64), dist_reduce_fx="sum")
        self._won_by_label: Counter[str] = Counter()
        self._n_by_label: Counter[str] = Counter()

    def update(self, episodes: Sequence[Episode], rewards: Sequence[TurnRewards]) -> None:
        """Add episodes.

        Args:
            episodes: failures included.
            rewards: one for each episode that is not a failure, in their order.

        Raises:
            ValueError: as many rewards as that were not given.
        """
        for episode in episodes:
            self.stops[_REASONS.index(episode.stop)] += 1
        sound = [episode for episode in episodes if not episode.stop.is_failure]
        for episode, reward in zip(sound, rewards, strict=True):
            self.sums += torch.tensor(_row(episode, reward), dtype=torch.float64, device=self.sums.device)
            labels = [f"{label}={value}" for label, value in episode.task.labels.items()]
            self._n_by_label.update(labels)
            self._won_by_label.update(labels if episode.won else ())

    def compute(self) -> dict[str, float]:
        """All numbers by name; a mean over nothing is nan.

        ``n`` episodes that are no failure; ``success`` with ``success_low`` and ``success_high`` (Wilson, 95 %);
        ``return`` and ``turns`` per episode; ``invalid_rate`` per played action; ``unfinished_rate`` and
        ``action_tokens`` per action; ``failures`` and ``failure/<type>`` are counts, ``stop/<reason>`` shares of ``n``;
        ``success/<label>=<value>`` comes with ``n/``, ``success_low/`` and ``success_high/`` of the same.
        """
        total = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        stops = dict(zip(_REASONS, self.stops.tolist(), strict=True))
        n = sum(count for stop, count in stops.items() if not stop.is_failure)
        low, high = wilson(round(total["won"]), round(n))
        numbers = {"n": n, "success": _mean(total["won"], n), "success_low": low, "success_high": high}
        numbers |= {"return": _mean(total["return"], n), "turns": _mean(total["turns"], n)}
        numbers["invalid_rate"] = _mean(total["invalid"], total["played"])
        numbers["unfinished_rate"] = _mean(total["unfinished"], total["turns"])
        numbers["action_tokens"] = _mean(total["action_tokens"], total["turns"])
        numbers["failures"] = sum(count for stop, count in stops.items() if stop.is_failure)
        for stop, count in stops.items():
            numbers |= {f"failure/{stop.value}": count} if stop.is_failure else {f"stop/{stop.value}": _mean(count, n)}
        for label, count in sorted(self._n_by_label.items()):
            won = self._won_by_label[label]
            low, high = wilson(won, count)
            numbers |= {f"success/{label}": won / count, f"n/{label}": float(count)}
            numbers |= {f"success_low/{label}": low, f"success_high/{label}": high}
        return numbers

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._won_by_label.clear()
        self._n_by_label.clear()


def _row(episode: Episode, reward: TurnRewards) -> list[float]:
    """One episode's part of each of `_SUMS`."""
    valid = [bool(turn.signals["valid"]) for turn in episode.turns if "valid" in turn.signals]
    tokens = sum(len(turn.action_ids) for turn in episode.turns)
    unfinished = episode.stop is StopReason.UNFINISHED_ACTION
    return [episode.won, reward.total, len(episode.turns), len(valid), valid.count(False), unfinished, tokens]


def _mean(total: float, n: float) -> float:
    return total / n if n else math.nan
