"""The few numbers of a stored episode that are needed once its texts and tokens have been read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.evaluation.stats.pass_at_k import name_of
from lit_agents.rollout.agents import has_no_player
from lit_agents.types import StopReason


@dataclass(frozen=True, slots=True)
class Facts:
    """One episode, small enough to keep those of a whole run."""

    line: int
    """Of ``episodes.jsonl``."""
    phase: str
    iteration: int
    task: str
    """Family, split and id."""
    task_line: str
    """What `lit_agents.evaluation.result.Conditions` hashes of the task."""
    labels: Mapping[str, str]
    round: int
    place: int
    member: int
    attempt: int
    stop: StopReason
    playable: bool
    """False if it did not begin for want of an expert or of possible actions, which no second attempt changes."""
    rewards: tuple[float, ...]
    """(K,) as stored; empty for a failure."""
    lengths: tuple[int, ...]
    """(K,) action tokens of each turn."""
    valid: tuple[bool, ...]
    """Of the actions that say so."""
    slid: bool
    version: int | None
    """Of the policy; None without turns."""

    @property
    def seat(self) -> tuple[int, int, str, int]:
        """What an iteration has one sound episode of."""
        return self.round, self.place, self.task, self.member

    @property
    def total(self) -> float:
        """The stored return."""
        return sum(self.rewards)

    @property
    def where(self) -> str:
        """For a message."""
        name = (
            f"{self.phase}, iteration {self.iteration}, task {self.task}, member {self.member}, attempt {self.attempt}"
        )
        return f"episodes.jsonl line {self.line} ({name})"


def facts_of(stored: StoredEpisode) -> Facts:
    """Extract them."""
    episode, task = stored.episode, stored.episode.task
    return Facts(
        line=stored.line,
        phase=stored.phase,
        iteration=stored.iteration,
        task=name_of(task),
        task_line=f"{task.family} {task.id} {task.sha256}",
        labels=task.labels,
        round=episode.round,
        place=episode.place,
        member=episode.member,
        attempt=episode.attempt,
        stop=episode.stop,
        playable=not has_no_player(episode),
        rewards=stored.rewards.values if stored.rewards else (),
        lengths=tuple(len(turn.action_ids) for turn in episode.turns),
        valid=tuple(bool(turn.signals["valid"]) for turn in episode.turns if "valid" in turn.signals),
        slid=any(turn.window_start > 1 for turn in episode.turns),
        version=episode.turns[0].policy_version if episode.turns else None,
    )
