"""A run's files held against each other, in one pass over the episodes and one over the trained rows.

What each check proves is said in its own module; this one knows which file of a run holds what.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_agents.algorithm.base import AgentModule
from lit_agents.evaluation.audit.attempts import AttemptAudit, Expected
from lit_agents.evaluation.audit.credit_rows import CreditAudit
from lit_agents.evaluation.audit.facts import Facts, facts_of
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.evaluation.audit.numbers import (
    check_result,
    check_row,
    compare,
    groups_of,
    ledger_of,
    numbers_of,
)
from lit_agents.evaluation.audit.rewards import check_rewards
from lit_agents.evaluation.audit.tokens import Plan, TrainedAudit, check_episode
from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.rollout.budget import Budget
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.eval_set import Elsewhere

STEPS = "versions that are those of the step before"


@dataclass(frozen=True)
class Configured:
    """What the configuration says of a run."""

    module: AgentModule
    data: RolloutDataModule
    demonstrations: int
    """Of the supervised stage; 0 without one."""
    elsewhere: Mapping[str, Elsewhere]
    budget: Budget | None
    spent_before: Mapping[str, Any] | None
    """Ledger of the run this one began with; None if it began with none."""
    begun_with: bool
    """Whether it began with a checkpoint of another run, whose results it may have taken over."""
    unchanged: bool
    """False if the run has had several configurations that play, reward or train in different ways."""

    def expected(self, phase: str) -> Expected | None:
        """What is played in a phase; None for one that the configuration does not know."""
        schedule, data, seed = self.data.schedule, self.data, self.data.seed
        place, _, _ = phase.rpartition("/")
        if phase == "rl":
            rounds, compares = schedule.resample_rounds, self.module.compares_group
            exact = self.budget is None or self.budget.prices.game > 0
            shape = (schedule.tasks, schedule.group_size, schedule.retries, data.counts["train"], seed)
            return Expected(*shape, last=exact, compares=compares, resample_rounds=rounds)
        if phase == "sft":
            count = data.counts["train"] if self.module.demonstrated else self.demonstrations
            return Expected(count, 1, schedule.retries, count, seed)
        if phase == "validation":
            return Expected(data.counts["validation"], 1, schedule.retries)
        if place == "test" or place in self.elsewhere:
            other = self.elsewhere.get(place, Elsewhere())
            return Expected(other.count or data.counts[other.split], 1, schedule.retries)
        return None

    def plans(self) -> dict[str, Plan]:
        """What each stage trains on; see `lit_agents.evaluation.audit.tokens.Plan`."""
        module, schedule = self.module, self.data.schedule
        skips = (module.skips_zero_advantage and not module.kl.loss) or schedule.resample_rounds > 0
        rl = Plan(schedule.passes, schedule.group_size, module.compares_group, skips)
        return {"sft": Plan(schedule.passes if module.demonstrated else 1), "rl": rl}


@dataclass
class RecordAudit:
    """One run.

    Args:
        folder: the run folder.
        configured: see there.
        findings: where faults go.
    """

    folder: Path
    configured: Configured
    findings: Findings
    phases: dict[str, AttemptAudit] = field(default_factory=dict)
    unfinished: bool = False
    """An iteration, or a measurement, was written whose numbers were not: the run was killed there."""

    def __post_init__(self) -> None:
        """Make the checks that keep something."""
        self._trained = TrainedAudit(self.configured.plans())
        self._credit = CreditAudit(self.configured.module, self.configured.data.schedule.passes)
        self._tokens_trained = 0
        summary = self.folder / "summary.json"
        self._summary: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
        self._metrics = self._rows()

    def add(self, stored: StoredEpisode) -> None:
        """An episode."""
        facts, findings = facts_of(stored), self.findings
        check_episode(stored, self.configured.module.policy.chat, findings)
        if self.configured.unchanged:
            check_rewards(stored, facts, self.configured.data.reward, findings)
        row = self._trained.add_sampled(stored)
        if row is not None and stored.phase == "rl":
            self._credit.add_sampled(stored, facts, row)
        expected = self.configured.expected(stored.phase)
        if expected is None:
            findings.faults.append(f"{facts.where}: the configuration knows no such phase")
            return
        self.phases.setdefault(stored.phase, AttemptAudit(expected)).add(facts)

    def add_trained(self, lines: Iterable[str]) -> None:
        """The lines of ``trained.jsonl``."""
        for number, line in enumerate(lines, start=1):
            content = json.loads(line)
            row = self._trained.add_trained(content)
            self._tokens_trained += sum(len(ids) for _, ids, _ in content["runs"])
            if content["stage"] == "rl":
                self._credit.add_trained(content, number, row)

    def check(self) -> None:
        """Everything that needs all episodes."""
        self._trained.check(self.findings)
        if self.configured.unchanged:
            for name, phase in self.phases.items():
                phase.check(name, self.findings)
            coefficients = {i: float(row["rollout/kl_coefficient"]) for (stage, i), (_, row) in self._metrics.items()
                            if stage == "rl" and "rollout/kl_coefficient" in row}  # fmt: skip
            self._credit.check(coefficients, self.findings)
        else:
            what = "rewards, advantages and completeness: the run went on with another configuration"
            self.findings.unchecked[what] += 1
        self._check_metrics()
        self._check_results()
        self._check_ledger()

    def _rows(self) -> dict[tuple[str, int], tuple[int, dict[str, str]]]:
        """Rows of ``metrics.csv`` with their lines, by stage and iteration."""
        path, rows = self.folder / "metrics.csv", dict[tuple[str, int], tuple[int, dict[str, str]]]()
        if not path.is_file():
            return rows
        with path.open(newline="", encoding="utf-8") as file:
            for line, content in enumerate(csv.DictReader(file), start=2):
                row = {name: value for name, value in content.items() if value}
                key = row["stage"], int(row["iteration"])
                fault = f"metrics.csv line {line}: {key[0]}, iteration {key[1]}, has a row before"
                self.findings.expect(key not in rows, "rows of metrics.csv", fault)
                rows[key] = line, row
        return rows

    def _found(self, phase: str, iteration: int = 0) -> list[Facts]:
        audit = self.phases.get(phase)
        return audit.found.get(iteration, []) if audit else []

    def _ended(self, stage: str) -> bool:
        return stage in self._summary.get("success", {})

    def _check_metrics(self) -> None:
        """Every row against its episodes, and every iteration's episodes against its row."""
        module, main = self.configured.module, "sft" if self.configured.module.demonstrated else "rl"
        for (stage, iteration), (line, row) in self._metrics.items():
            parts, played = {}, self._found(stage, iteration)
            if stage == "rl" or iteration == 1:
                parts["rollout"] = numbers_of(played)
                demonstrated = stage == "sft"
                parts["rollout"] |= groups_of(played, module.compares_group and not demonstrated, demonstrated)
                self._expect_version(played, self._step(stage, iteration - 1) if stage == "rl" else -1)
            if stage == main and (validated := self._found("validation", iteration)):
                parts["validation"] = numbers_of(validated)
                self._expect_version(validated, int(row["step"]))
            check_row(row, line, parts, self.findings)
        for phase, audit in self.phases.items():
            if "/" in phase:
                continue
            stage = main if phase == "validation" else phase
            rows = {i for s, i in self._metrics if s == stage}
            for iteration in sorted(audit.found.keys() - rows):
                self._left_over(stage, f"{audit.found[iteration][0].where}: metrics.csv has no row of its iteration")
            fault = f"metrics.csv: its iterations of {stage} are {sorted(rows)}"
            self.findings.expect(rows == set(range(1, len(rows) + 1)), "rows of metrics.csv", fault)

    def _step(self, stage: str, iteration: int) -> int:
        """Optimizer steps at the end of an iteration, as ``metrics.csv`` says."""
        _, row = self._metrics.get((stage, iteration), (0, {}))
        return int(row.get("step", 0))

    def _expect_version(self, found: Iterable[Facts], step: int) -> None:
        for facts in found:
            fault = f"{facts.where}: played by version {facts.version}, and the policy had {step} steps"
            self.findings.expect(facts.version in (None, step), STEPS, fault)

    def _left_over(self, stage: str, fault: str) -> None:
        """Episodes without numbers: of a run that was killed between the two, or a fault."""
        self.unfinished = True
        if self._ended(stage):
            self.findings.faults.append(fault)
        else:
            self.findings.unchecked["numbers of what the run was killed in"] += 1

    def _check_results(self) -> None:
        """Every result in ``summary.json`` against its episodes."""
        results = {("test", stage): result for stage, result in self._summary.get("success", {}).items()}
        for stage, places in self._summary.get("elsewhere", {}).items():
            results |= {(place, stage): result for place, result in places.items()}
        for (place, stage), result in results.items():
            found = self._found(f"{place}/{stage}")
            where = f"summary.json, {place} after {stage}"
            if not found and self.configured.begun_with and stage == "base":
                self.findings.unchecked["results that were taken over from the run this one began with"] += 1
                continue
            check_result(result, found, where, self.findings)
            steps = 0 if stage == "base" else self._summary["measured"][stage]["steps"]
            self._expect_version(found, int(steps))
        for phase, audit in self.phases.items():
            place, _, stage = phase.rpartition("/")
            if place and (place, stage) not in results:
                self._left_over(stage, f"{audit.found[0][0].where}: summary.json has no result of it")

    def _check_ledger(self) -> None:
        """``ledger.json``, and what of a budget is left."""
        path = self.folder / "ledger.json"
        if self.unfinished or (self.configured.begun_with and self.configured.spent_before is None):
            self.findings.unchecked["ledger.json"] += 1
            return
        noted = json.loads(path.read_text(encoding="utf-8"))
        sft, rl = ([f for some in self.phases[p].found.values() for f in some] if p in self.phases else []
                   for p in ("sft", "rl"))  # fmt: skip
        again: dict[str, Any] = ledger_of(sft, rl, self._tokens_trained)
        if before := self.configured.spent_before:
            again = {name: count + before[name] for name, count in again.items()}
        compare({name: noted.get(name) for name in again}, again, "ledger.json", self.findings)
        self.findings.unchecked["tokens_computed and seconds of ledger.json"] += 1
        if self.configured.budget:
            left = self.configured.budget.account(again)
            compare(noted.get("budget", {}), left, "ledger.json, budget", self.findings)
