"""Episodes as lines of a file, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from lit_agents.types import Episode, StopReason, Task, Turn, TurnRewards


@dataclass(frozen=True)
class StoredEpisode:
    """One line of ``episodes.jsonl``."""

    phase: str
    """``sft``, ``rl``, ``validation`` or ``test/<stage>``."""
    iteration: int
    """From 1; 0 in a test."""
    episode: Episode
    rewards: TurnRewards | None
    """None for a failure."""
    line: int = field(default=0, compare=False)
    """Of the file it was read from, from 1."""
    offset: int = field(default=0, compare=False)
    """Of that line, in bytes; see `read_again`."""

    def row(self) -> str:
        """The line."""
        place = {"phase": self.phase, "iteration": self.iteration}
        rewards = None if self.rewards is None else asdict(self.rewards)
        content = {**asdict(self.episode), "stop": self.episode.stop.value}
        return json.dumps(place | content | {"rewards": rewards})

    @staticmethod
    def of(row: str | bytes, line: int = 0, offset: int = 0) -> StoredEpisode:
        """The inverse.

        Raises:
            ValueError, KeyError, TypeError: it is no such line.
        """
        content: dict[str, Any] = json.loads(row)
        phase, iteration, rewards = (content.pop(key) for key in ("phase", "iteration", "rewards"))
        content |= {"task": Task(**content["task"]), "stop": StopReason(content["stop"])}
        content["turns"] = tuple(_turn(turn) for turn in content["turns"])
        worth = None
        if rewards is not None:
            parts = {name: tuple(part) for name, part in rewards["parts"].items()}
            worth = TurnRewards(tuple(rewards["values"]), parts)
        return StoredEpisode(phase, iteration, Episode(**content), worth, line, offset)


def _turn(content: dict[str, Any]) -> Turn:
    lists = {name: tuple(content[name]) for name in ("observation_ids", "action_ids", "action_logprobs")}
    return Turn(**{**content, **lists})


def read_episodes(path: Path) -> Iterator[StoredEpisode]:
    """One after the other, so that a file of any size can be read.

    Raises:
        OSError, ValueError, KeyError, TypeError: there is no such file, or a line of it is none of these.
    """
    offset = 0
    with path.open("rb") as file:
        for number, row in enumerate(file, start=1):
            yield StoredEpisode.of(row, number, offset)
            offset += len(row)


def read_again(path: Path, offsets: Iterable[int]) -> Iterator[StoredEpisode]:
    """The episodes at these places of a file, without reading the others.

    Raises:
        OSError, ValueError, KeyError, TypeError: as `read_episodes`.
    """
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield StoredEpisode.of(file.readline(), offset=offset)


def in_parts(episodes: Iterable[StoredEpisode], count: int) -> Iterator[list[StoredEpisode]]:
    """So many at a time, so that never more are held."""
    rest = iter(episodes)
    while part := list(islice(rest, count)):
        yield part
