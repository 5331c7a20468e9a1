"""Rates with their n and interval, over episodes; environment failures are counted and are in no rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_agents.evaluation.stats.pass_at_k import rate_interval, tally
from lit_agents.types import Episode, StopReason, TurnRewards

_REASONS = tuple(StopReason)
_SUMS = ("won", "return", "turns", "played", "invalid", "unfinished", "action_tokens", "slid", "cheated", "judged")


class EpisodeMetrics(Metric):
    """What a set of episodes amounts to. It is given the episodes of all ranks, so there is nothing to synchronise."""

    full_state_update = False
    sums: Tensor
    stops: Tensor

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)
        self.add_state("sums", torch.zeros(len(_SUMS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("stops", torch.zeros(len(_REASONS), dtype=torch.float64), dist_reduce_fx="sum")
        self._sound: dict[str, list[Episode]] = {"": []}

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
            for label in ("", *(f"{label}={value}" for label, value in episode.task.labels.items())):
                self._sound.setdefault(label, []).append(episode)

    def compute(self) -> dict[str, float]:
        """All numbers by name; a mean over nothing is nan.

        ``n`` episodes that are no failure; ``success`` with ``success_low`` and ``success_high`` (see `rate_interval`);
        ``return`` and ``turns`` per episode; ``invalid_rate`` per played action; ``unfinished_rate`` and
        ``action_tokens`` per action; ``slid`` is the share of episodes of which turns dropped out of sight; ``cheated``
        counts the episodes with that signal, where the environment gives it; ``failures`` and
        ``failure/<type>`` are counts, ``stop/<reason>`` shares of ``n``;
        ``success/<label>=<value>`` comes with ``n/``, ``success_low/`` and ``success_high/`` of the same.
        """
        total = dict(zip(_SUMS, self.sums.tolist(), strict=True))
        stops = dict(zip(_REASONS, self.stops.tolist(), strict=True))
        n = sum(count for stop, count in stops.items() if not stop.is_failure)
        low, high = rate_interval(tally(self._sound[""]))
        numbers = {"n": n, "success": _mean(total["won"], n), "success_low": low, "success_high": high}
        numbers |= {"return": _mean(total["return"], n), "turns": _mean(total["turns"], n)}
        numbers["invalid_rate"] = _mean(total["invalid"], total["played"])
        numbers["unfinished_rate"] = _mean(total["unfinished"], total["turns"])
        numbers["action_tokens"] = _mean(total["action_tokens"], total["turns"])
        numbers["slid"] = _mean(total["slid"], n)
        if total["judged"]:
            numbers["cheated"] = total["cheated"]
        numbers["failures"] = sum(count for stop, count in stops.items() if stop.is_failure)
        for stop, count in stops.items():
            numbers |= {f"failure/{stop.value}": count} if stop.is_failure else {f"stop/{stop.value}": _mean(count, n)}
        for label, episodes in sorted(self._sound.items())[1:]:  # the first is all of them
            low, high = rate_interval(tally(episodes))
            won = sum(e.won for e in episodes)
            numbers |= {f"success/{label}": won / len(episodes), f"n/{label}": float(len(episodes))}
            numbers |= {f"success_low/{label}": low, f"success_high/{label}": high}
        return numbers

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._sound = {"": []}


def _row(episode: Episode, reward: TurnRewards) -> list[float]:
    """One episode's part of each of `_SUMS`."""
    valid = [bool(turn.signals["valid"]) for turn in episode.turns if "valid" in turn.signals]
    tokens = sum(len(turn.action_ids) for turn in episode.turns)
    unfinished = episode.stop is StopReason.UNFINISHED_ACTION
    slid = any(turn.window_start > 1 for turn in episode.turns)
    cheated = [bool(turn.signals["cheated"]) for turn in episode.turns if "cheated" in turn.signals]
    turns, invalid = len(episode.turns), valid.count(False)
    row = [episode.won, reward.total, turns, len(valid), invalid, unfinished, tokens, slid]
    return [*row, any(cheated), bool(cheated)]


def _mean(total: float, n: float) -> float:
    return total / n if n else math.nan
