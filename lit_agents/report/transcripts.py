"""Sample episodes of a report, as a chat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.report.load import Material
from lit_agents.run.record import TEST

MOST_SETTINGS = 12
LONGEST = 3000
"""Characters of one message that are shown."""


@dataclass(frozen=True)
class Message:
    """One side of a turn."""

    role: str
    """``world`` or ``agent``."""
    text: str
    note: str = ""
    """What the action was worth."""


@dataclass(frozen=True)
class Chat:
    """One episode."""

    title: str
    messages: tuple[Message, ...]


def chats(material: Material) -> list[Chat]:
    """Of each setting's first seed the first episode that was won and the first that was not, of those after its last stage."""
    found = []
    for setting in material.settings[:MOST_SETTINGS]:
        record = setting.records[0]
        for episode in won_and_lost(record.folder / "episodes.jsonl", f"{TEST}/{setting.last}"):
            found.append(_chat(f"{setting.label}, seed {record.seed}, after {setting.last}", episode))
    return found


def won_and_lost(path: Path, phase: str) -> list[StoredEpisode]:
    """The first of either in a file that may be long; those the environment broke are left out."""
    kept: dict[bool, StoredEpisode] = {}
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                if len(kept) < 2 and line.startswith(f'{{"phase": "{phase}"') and line.endswith("\n"):
                    episode = StoredEpisode.of(line)
                    if episode.rewards is not None:
                        kept.setdefault(episode.episode.won, episode)
    return [kept[won] for won in (True, False) if won in kept]


def _chat(where: str, stored: StoredEpisode) -> Chat:
    episode, rewards = stored.episode, stored.rewards
    assert rewards is not None
    messages = []
    for turn, worth in zip(episode.turns, rewards.values, strict=True):
        messages.append(Message("world", _cut(turn.observation)))
        signals = ", ".join(f"{name} {value}" for name, value in turn.signals.items())
        messages.append(
            Message("agent", _cut(turn.action), f"reward {worth:+.3g}" + (f"; {signals}" if signals else ""))
        )
    ending = f"{episode.stop.value}, return {rewards.total:+.3g}, {len(episode.turns)} turns"
    return Chat(f"{where}: {episode.task.family} {episode.task.id}: {ending}", tuple(messages))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n… {len(text) - LONGEST} characters more"
