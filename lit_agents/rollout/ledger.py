"""What a run has spent so far, in the units budgets are made of."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lit_agents.distributed import from_all_ranks
from lit_agents.types import Episode


@dataclass
class Ledger:
    """Both stages of a run write into one ledger. Evaluation is not charged."""

    demonstrations: int = 0
    """Expert episodes collected for the supervised stage."""
    demonstrations_lost: int = 0
    """Those of them that did not win; they are paid for, and not imitated."""
    episodes: int = 0
    """Episodes the policy played for training, failed ones not counted."""
    games: int = 0
    """Distinct training tasks of these episodes; those that only replaced groups without signal are left out."""
    failed_episodes: int = 0
    """Episodes the environment broke; nobody is charged for them."""
    turns: int = 0
    """Actions in the two kinds of episodes together."""
    tokens_sampled: int = 0
    """Action tokens the policy sampled for training."""
    tokens_trained: int = 0
    """Action tokens that had a part in a loss, counted again in every pass."""
    tokens_computed: int = 0
    """Tokens that went through the model in training, shared beginnings once."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of the stages ``sft`` and ``rl``, of what happened inside them (``demonstrating``, ``collecting``,
    ``crediting``, ``validating``; the rest is training), and of ``test/<stage>`` after each."""

    def charge(self, episodes: Sequence[Episode], demonstrated: bool) -> None:
        """Episodes collected for training."""
        sound = [e for e in episodes if not e.stop.is_failure]
        self.failed_episodes += len(episodes) - len(sound)
        self.turns += sum(len(e.turns) for e in sound)
        if demonstrated:
            self.demonstrations += len(sound)
            self.demonstrations_lost += sum(not e.won for e in sound)
            return
        self.episodes += len(sound)
        self.tokens_sampled += sum(len(t.action_ids) for e in sound for t in e.turns)

    @contextmanager
    def clock(self, part: str) -> Iterator[None]:
        """Add the time spent inside to a part."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begun

    def total(self) -> dict[str, Any]:
        """What all processes of the run have charged, for ``ledger.json`` and checkpoints; the seconds are the first's."""
        everyone = from_all_ranks([asdict(self)])
        counts = [name for name in everyone[0] if name != "seconds"]
        return everyone[0] | {name: sum(each[name] for each in everyone) for name in counts}

    def go_on_from(self, total: dict[str, Any], first: bool) -> None:
        """Continue from a total, which the first process carries for all."""
        for f in fields(self):
            setattr(self, f.name, total[f.name] if first or f.name == "seconds" else 0)
