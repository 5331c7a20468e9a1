"""Stored actions, played again: does the world still say and measure what is stored?

The world is stepped here without the collector, so a mistake in what that notes is found too. Only worlds that say of
themselves that they are `lit_agents.environment.base.TextEnvironment.repeatable` are played.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from lit_agents.environment.base import Transition
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.evaluation.audit.facts import facts_of
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.evaluation.episode_store import StoredEpisode, in_parts
from lit_agents.policy.chat import ChatFormat
from lit_agents.types import StopReason

WHAT = "turns played again"
ENDS = {StopReason.WON: "won", StopReason.LOST: "lost", StopReason.TRUNCATED: "truncated"}


def sampled(stored: Iterable[StoredEpisode], count: int) -> list[StoredEpisode]:
    """So many episodes that are no failures, each as likely; read one after the other (Vitter's algorithm R)."""
    chosen: list[StoredEpisode] = []
    stream, seen = random.Random(0), 0
    for episode in stored:
        if episode.episode.stop.is_failure or not episode.episode.turns:
            continue
        seen += 1
        if len(chosen) < count:
            chosen.append(episode)
        elif (place := stream.randrange(seen)) < count:
            chosen[place] = episode
    return sorted(chosen, key=lambda episode: episode.line)


def replay(
    episodes: Iterable[StoredEpisode], pool: EnvPool, together: int, chat: ChatFormat, findings: Findings
) -> None:
    """Play episodes again, so many at once.

    Args:
        pool: of at least that many sessions.
    """
    sound = (e for e in episodes if not e.episode.stop.is_failure and e.episode.turns)
    for some in in_parts(sound, together):
        _replay(some, pool, chat, findings)


def _replay(some: Sequence[StoredEpisode], pool: EnvPool, chat: ChatFormat, findings: Findings) -> None:
    open_: dict[int, StoredEpisode] = {}
    for number, start in pool.reset({i: stored.episode.task for i, stored in enumerate(some)}).items():
        stored = some[number]
        if isinstance(start, Failure):
            _not_played(start, findings)
            continue
        where, first = facts_of(stored).where, stored.episode.turns[0]
        _equal(f"{where}: the first observation", first.observation, start.observation, findings)
        _equal(f"{where}: the score of a win", stored.episode.max_score, start.max_score, findings)
        findings.checked["episodes played again"] += 1
        open_[number] = stored
    for k in range(max((len(stored.episode.turns) for stored in open_.values()), default=0)):
        moves = {}
        for number, stored in open_.items():
            turns = stored.episode.turns
            if k < len(turns) and turns[k].signals:  # without signals it was not played
                moves[number] = chat.command(turns[k].action)
        for number, answer in pool.step(moves).items() if moves else ():
            stored = open_[number]
            if isinstance(answer, Failure):
                _not_played(answer, findings)
                del open_[number]
            elif not _check_turn(stored, k, answer, findings):
                del open_[number]


def _check_turn(stored: StoredEpisode, k: int, answer: Transition, findings: Findings) -> bool:
    """One turn; whether the episode can go on."""
    episode, where = stored.episode, f"{facts_of(stored).where}, turn {k + 1}"
    before = float(episode.turns[k - 1].signals["score"]) if k else 0.0
    own = {"score": answer.score, "gain": answer.score - before, "valid": answer.valid}
    signals, noted = {**answer.signals, **own}, episode.turns[k].signals
    findings.checked[WHAT] += 1
    good = True
    for name in sorted(signals.keys() | noted.keys()):
        good &= _equal(f"{where}: the signal {name}", noted.get(name), signals.get(name), findings)
    over = answer.terminated or answer.truncated
    if k + 1 < len(episode.turns):
        if over:
            findings.faults.append(
                f"{where}: the world ended the episode here, and {len(episode.turns)} turns are stored"
            )
            return False
        return good & _equal(f"{where}: what came next", episode.turns[k + 1].observation, answer.observation, findings)
    end = StopReason.WON if answer.won else StopReason.LOST if answer.lost else StopReason.ENDED
    end = end if answer.terminated else StopReason.TRUNCATED if answer.truncated else episode.stop
    by_world = episode.stop in (*ENDS, StopReason.ENDED)
    if by_world and not over and episode.stop is not StopReason.ENDED:  # an expert may have given up
        findings.faults.append(f"{where}: the stored end is {episode.stop.value}, and the world goes on")
        return False
    return _equal(f"{where}: the end", episode.stop.value, end.value, findings)


def _equal(what: str, noted: object, again: object, findings: Findings) -> bool:
    if noted == again:
        return True
    start = 0
    if isinstance(noted, str) and isinstance(again, str):  # texts are long; show where they part
        start = max(0, _parting(noted, again) - 20)
        noted, again = noted[start:], again[start:]
    at = f" from character {start} on" if start else ""
    findings.faults.append(f"{what}{at} is {noted!r:.100}, played again {again!r:.100}")
    return False


def _parting(first: str, second: str) -> int:
    """The first character in which two texts differ."""
    places = (i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(places, min(len(first), len(second)))


def _not_played(failure: Failure, findings: Findings) -> None:
    error = " ".join(failure.error.split())[-120:]
    findings.unchecked[f"episodes whose world could not be played again ({failure.stop.value}: {error})"] += 1
