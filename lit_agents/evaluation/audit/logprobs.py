"""Log-probabilities of stored actions, computed again with the weights that sampled them, as far as those were kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.checkpoint import read_checkpoint
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.evaluation.audit.tokens import logprob_gap
from lit_agents.evaluation.episode_store import StoredEpisode, read_again
from lit_agents.rollout.datamodule import RolloutDataModule

TOLERANCES = {"float64": 1e-4, "float32": 1e-3, "bfloat16": 1.0}
"""Largest difference of one token's log-probability, nats, by the type computed in: the engine reads a conversation turn by
turn, the trainer in one go, so they round differently; a larger one is computed once more in float32. The mean over all tokens of
one set of weights may be a tenth of it."""
WHAT = "log-probabilities computed again"
Sampler = tuple[str, int]
"""A stage and the number of its optimizer steps; what the run began with is ``("base", 0)``."""


class LogprobAudit:
    """One run's sampled tokens.

    Args:
        begun_with: the checkpoint the run began with, of another run; None for the untouched model.
    """

    def __init__(self, folder: Path, module: AgentModule, data: RolloutDataModule, begun_with: Path | None) -> None:
        self._folder, self._module, self._data, self._begun_with = folder, module, data, begun_with
        self._places: dict[Sampler, dict[float, list[int]]] = {}
        self._tokens: dict[Sampler, int] = {}
        self.largest = self.total = 0.0
        """Difference of a log-probability: the largest one, and the sum over tokens."""
        self.unknown = 0
        """Sampled tokens whose weights were not kept."""

    def add(self, stored: StoredEpisode) -> None:
        """Note where an episode is whose tokens were drawn from the policy's whole distribution."""
        turns = stored.episode.turns
        s = self._data.sampling if stored.phase == "rl" else self._data.evaluation
        if not turns or turns[0].policy_version < 0 or not (s.temperature > 0 and s.top_p == 1 and s.top_k == 0):
            return
        sampler = self._sampler(stored)
        self._places.setdefault(sampler, {}).setdefault(s.temperature, []).append(stored.offset)
        self._tokens[sampler] = self._tokens.get(sampler, 0) + sum(len(turn.action_ids) for turn in turns)

    def check(self, precision: str, tolerance: float | None, findings: Findings) -> None:
        """Compute with every set of weights there is."""
        policy, weights = self._module.policy, self._weights()
        policy.load()
        policy.to("cuda" if torch.cuda.is_available() else "cpu")
        policy.compute_in(precision)
        tolerance = TOLERANCES[self.computed_in] if tolerance is None else tolerance
        for sampler, content in weights.items():
            chosen = self._places.get(sampler, {})
            if content is not None and chosen:
                self._module.restore(read_checkpoint(content))
            for temperature, offsets in sorted(chosen.items()):
                self._compare(offsets, temperature, tolerance, findings)
        self.unknown = sum(count for sampler, count in self._tokens.items() if sampler not in weights)
        if self.unknown:
            findings.unchecked["tokens whose sampling weights were not kept (fit --keep_weights N)"] += self.unknown

    def _compare(self, offsets: Sequence[int], temperature: float, tolerance: float, findings: Findings) -> None:
        tokens, total, first = 0, 0.0, ""
        episodes = read_again(self._folder / "episodes.jsonl", offsets)
        for stored, gap in logprob_gap(self._module.policy, episodes, temperature, tolerance):
            first = first or f"{stored.phase}, iteration {stored.iteration} and on"
            tokens, total = tokens + gap.tokens, total + gap.mean * gap.tokens
            self.largest = max(self.largest, gap.largest)
            if not gap.largest <= tolerance:
                where = f"{stored.phase}, iteration {stored.iteration}, task {stored.episode.task.id}"
                findings.faults.append(f"{where}: a log-probability differs by {gap.largest:.3g} ({tolerance=:g})")
        if tokens and not total / tokens <= tolerance / 10:
            findings.faults.append(f"{first}: log-probabilities differ by {total / tokens:.3g} on average")
        findings.checked[WHAT] += tokens
        self.total += total

    @property
    def computed_in(self) -> str:
        """The coarsest type log-probabilities went through."""
        policy = self._module.policy
        half = policy.dtype == torch.bfloat16 or policy.mixed is not None
        return "bfloat16" if half else str(policy.dtype).removeprefix("torch.")

    def _sampler(self, stored: StoredEpisode) -> Sampler:
        """Whose actions they are."""
        version = stored.episode.turns[0].policy_version
        trained = "sft" if self._module.demonstrated else "rl"
        place, _, measured = stored.phase.rpartition("/")  # "test/sft", "NAME/rl" for places elsewhere
        stage = measured if place else trained
        return self._start if stage == "rl" and version == 0 else (stage, version)

    @cached_property
    def _start(self) -> Sampler:
        """What RL begins with."""
        last = self._folder / "checkpoints" / "sft" / "last.ckpt"
        return ("sft", int(read_checkpoint(last)["global_step"])) if last.is_file() else ("base", 0)

    def _weights(self) -> dict[Sampler, Path | None]:
        """What the run began with (None: the untouched model), then one file for each set of weights that is there."""
        found: dict[Sampler, Path | None] = {("base", 0): self._begun_with}
        for path in sorted(self._folder.glob("checkpoints/*/*.ckpt")):
            found.setdefault((path.parent.name, int(read_checkpoint(path)["global_step"])), path)
        return found
