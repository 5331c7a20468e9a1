"""Which trained row is which episode, so that its advantages can be computed again; see `advantage_audit`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from lit_agents.algorithm.base import AgentModule
from lit_agents.evaluation.audit.advantages import Trained, check_iteration, known
from lit_agents.evaluation.audit.facts import Facts
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.evaluation.episode_store import StoredEpisode


class CreditAudit:
    """The advantages of a run's RL stage.

    Args:
        module: algorithm and settings, from the configuration.
        passes: how often an iteration's episodes are trained on.
    """

    def __init__(self, module: AgentModule, passes: int) -> None:
        self._module, self._passes = module, passes
        self._episodes: dict[int, dict[Hashable, list[Facts]]] = {}
        self._logprobs: dict[int, list[float]] = {}  # by line of episodes.jsonl
        self._lines: dict[int, dict[Hashable, list[tuple[int, Mapping[str, Any]]]]] = {}

    def add_sampled(self, stored: StoredEpisode, facts: Facts, row: Hashable) -> None:
        """A sound episode of RL, and what a row that trains it is known by."""
        self._episodes.setdefault(facts.iteration, {}).setdefault(row, []).append(facts)
        if self._module.kl.reward:
            self._logprobs[facts.line] = [p for turn in stored.episode.turns for p in turn.action_logprobs]

    def add_trained(self, content: Mapping[str, Any], line: int, row: Hashable) -> None:
        """A line of ``trained.jsonl``, of RL."""
        names = ("advantages", "values", "returns", "reference")
        kept = {name: content[name] for name in names if name in content or name == "advantages"}
        self._lines.setdefault(content["iteration"], {}).setdefault(row, []).append((line, kept))

    def check(self, coefficients: Mapping[int, float], findings: Findings) -> None:
        """Every iteration.

        Args:
            coefficients: of the KL in the reward, by iteration, where it is not the configured one.
        """
        if not known(self._module):
            kind = type(self._module).__name__
            findings.unchecked[f"advantages of {kind}, which has a rule of its own"] += sum(
                map(len, self._lines.values())
            )
            return
        for iteration, lines in self._lines.items():
            episodes = self._episodes.get(iteration, {})
            rows: list[Trained] = []
            for row, copies in lines.items():
                rows += self._rows(copies, episodes.get(row, []), findings)
            everyone = [facts for some in episodes.values() for facts in some]
            coefficient = coefficients.get(iteration, self._module.kl.reward)
            check_iteration(self._module, everyone, rows, coefficient, findings)

    def _rows(
        self, copies: list[tuple[int, Mapping[str, Any]]], facts: list[Facts], findings: Findings
    ) -> list[Trained]:
        """The rows of the first pass, each with an episode of its tokens; those of later passes must be the same."""
        first = copies[: max(1, len(copies) // self._passes)]
        for i, (line, content) in enumerate(copies):
            mine = first[i % len(first)]
            if content != mine[1]:
                findings.faults.append(f"trained.jsonl line {line}: its advantages are not those of line {mine[0]}")
        order = sorted(
            facts, key=lambda f: f.total
        )  # episodes of the same tokens: the better one has the larger advantage
        content_of = sorted(first, key=lambda copy: sum(value * n for value, n in copy[1]["advantages"]))
        pairs = zip(order, content_of, strict=False)
        return [Trained.of(f, line, content, self._logprobs.get(f.line, [])) for f, (line, content) in pairs]
