"""Were the advantages that were trained those of the stored rewards? Computed again with plain loops over lists.

The formulas are those of docs/formulas.md, 2 to 6, written a second time: nothing of `lit_agents.algorithm.advantages` is called.
Of a critic and of a reference policy the numbers are needed that the run noted (``values`` and ``reference`` of
``trained.jsonl``); they are taken as they are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.grpo import GRPO
from lit_agents.algorithm.ppo import PPO
from lit_agents.algorithm.reinforce_pp import ReinforcePP
from lit_agents.algorithm.rloo import RLOO
from lit_agents.evaluation.audit.facts import Facts
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.system.run_lengths import spelled_out

TOLERANCE = 1e-4
"""Relative to the larger of 1 and the advantage; the trainer computes in float32."""
ROUNDING = 1e-5
"""Of the largest number that goes into a difference, which a small deviation then magnifies."""
Column = list[float]
"""One number per action token of an episode."""


@dataclass
class Trained:
    """One trained row, with the episode it is of."""

    facts: Facts
    line: int
    """Of ``trained.jsonl``."""
    advantages: Column
    values: Column = field(default_factory=list)
    returns: Column = field(default_factory=list)
    reference: Column = field(default_factory=list)
    logprobs: Column = field(default_factory=list)
    """As noted at sampling time; needed where the KL is in the reward."""

    @staticmethod
    def of(facts: Facts, line: int, content: Mapping[str, Any], logprobs: Column) -> Trained:
        """Read a line of ``trained.jsonl``."""
        names = ("values", "returns", "reference")
        more = {name: spelled_out(content[name]) for name in names if name in content}
        return Trained(facts, line, spelled_out(content["advantages"]), **more, logprobs=logprobs)

    @property
    def where(self) -> str:
        """For a message."""
        f = self.facts
        return f"trained.jsonl line {self.line} ({f.phase}, iteration {f.iteration}, task {f.task}, member {f.member})"


def known(module: AgentModule) -> bool:
    """Whether the advantages of an algorithm can be computed again here."""
    return any(type(module).credit is kind.credit for kind in (GRPO, RLOO, ReinforcePP, PPO))


def check_iteration(
    module: AgentModule, episodes: Sequence[Facts], rows: Sequence[Trained], coefficient: float, findings: Findings
) -> None:
    """All rows of one pass over an iteration.

    Args:
        module: algorithm and settings, from the configuration.
        episodes: every sound episode of the iteration, trained or not.
        rows: see `Trained`; their rewards count as stored.
        coefficient: of the KL in the reward in this iteration.
    """
    rewards = {id(row): _rewards(row, coefficient) for row in rows}
    if type(module).credit in (GRPO.credit, RLOO.credit):
        _compared(module, episodes, rows, rewards, findings)
    elif isinstance(module, PPO):
        _by_critic(module, rows, rewards, findings)
    elif isinstance(module, ReinforcePP):
        columns = [_to_go(rewards[id(row)], module.gamma) for row in rows]
        _whitened(rows, columns, findings)


def _rewards(row: Trained, coefficient: float) -> Column:
    """Per token: each turn's reward on its last one, less the KL penalty."""
    column: Column = []
    for reward, length in zip(row.facts.rewards, row.facts.lengths, strict=True):
        column += [0.0] * (length - 1) + [reward]
    if row.reference:
        gaps = (sampled - held for sampled, held in zip(row.logprobs, row.reference, strict=True))
        column = [reward - coefficient * gap for reward, gap in zip(column, gaps, strict=True)]
    return column


def _compared(
    module: AgentModule,
    episodes: Sequence[Facts],
    rows: Sequence[Trained],
    rewards: Mapping[int, Column],
    findings: Findings,
) -> None:
    """GRPO and RLOO: returns against those of the group."""
    penalised = {row.facts.line: sum(rewards[id(row)]) for row in rows}
    groups: dict[tuple[int, int, str], list[Facts]] = {}
    for facts in episodes:
        groups.setdefault((facts.round, facts.place, facts.task), []).append(facts)
    for row in rows:
        members = groups[row.facts.round, row.facts.place, row.facts.task]
        if module.kl.reward and not all(facts.line in penalised for facts in members):
            findings.unchecked["advantages beside an episode that was left out, whose KL was not noted"] += 1
            continue
        returns = [penalised[f.line] if module.kl.reward else f.total for f in members]
        own = penalised[row.facts.line] if module.kl.reward else row.facts.total
        if len(returns) < 2:
            findings.faults.append(f"{row.where}: it was trained without another episode of its group")
            continue
        _expect(row, [_against(module, own, returns)] * len(row.advantages), _slack(module, returns), findings)


def _against(module: AgentModule, own: float, returns: Sequence[float]) -> float:
    low, high = min(returns), max(returns)
    if high - low <= 1e-6 * max(1.0, abs(low), abs(high)):
        return 0.0
    if isinstance(module, GRPO):
        difference = own - math.fsum(returns) / len(returns)
        return difference / (statistics.stdev(returns) + 1e-6) if module.divide_by_std else difference
    others = (math.fsum(returns) - own) / (len(returns) - 1)
    return own - others


def _slack(module: AgentModule, returns: Sequence[float]) -> float:
    largest = max(map(abs, returns))
    if isinstance(module, GRPO) and module.divide_by_std:
        return ROUNDING * largest / (statistics.stdev(returns) + 1e-6)
    return ROUNDING * largest


def _to_go(rewards: Column, gamma: float) -> Column:
    """The discounted sum of this and all later rewards."""
    column, running = [0.0] * len(rewards), 0.0
    for i in range(len(rewards) - 1, -1, -1):
        running = rewards[i] + gamma * running
        column[i] = running
    return column


def _by_critic(module: PPO, rows: Sequence[Trained], rewards: Mapping[int, Column], findings: Findings) -> None:
    """PPO: GAE and the critic's targets, from the noted values."""
    columns = []
    for row in rows:
        reward, values = rewards[id(row)], row.values
        if len(values) != len(reward) or len(row.returns) != len(reward):
            findings.faults.append(f"{row.where}: {len(reward)} tokens have {len(values)} values of the critic")
            return
        after = 0.0
        if module.bootstrap_truncated and row.facts.stop.has_continuation and module.gamma:
            after = (row.returns[-1] - reward[-1]) / module.gamma  # the only trace of it that is kept
            findings.unchecked["values after the end of truncated episodes, taken from the critic's targets"] += 1
        deltas = [
            r + module.gamma * follows - v for r, (v, follows) in zip(reward, pairwise([*values, after]), strict=True)
        ]
        advantages = _to_go(deltas, module.gamma * module.lam)
        columns.append(advantages)
        targets = [a + v for a, v in zip(advantages, values, strict=True)]
        slack = ROUNDING * max(map(abs, (*values, *targets)), default=0.0)
        _hold(row, "target of the critic at", row.returns, targets, slack, findings)
    _whitened(rows, columns, findings)


def _whitened(rows: Sequence[Trained], columns: Sequence[Column], findings: Findings) -> None:
    """Less the mean, over the standard deviation, both over all tokens of the iteration."""
    tokens = [value for column in columns for value in column]
    if not tokens:
        return
    mean = math.fsum(tokens) / len(tokens)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in tokens) / len(tokens)) + 1e-8
    slack = ROUNDING * max(map(abs, tokens)) / deviation
    for row, column in zip(rows, columns, strict=True):
        _expect(row, [(value - mean) / deviation for value in column], slack, findings)


def _expect(row: Trained, expected: Column, slack: float, findings: Findings) -> None:
    _hold(row, "advantage of", row.advantages, expected, slack, findings)


def _hold(row: Trained, what: str, noted: Column, expected: Column, slack: float, findings: Findings) -> None:
    """Token by token; the first one that differs is named."""
    name = "targets of the critic computed again" if what.startswith("target") else "advantages computed again"
    findings.checked[name] += len(expected)
    if len(noted) != len(expected):
        findings.faults.append(f"{row.where}: {len(noted)} numbers for {len(expected)} action tokens")
        return
    for i, (mine, other) in enumerate(zip(noted, expected, strict=True)):
        if not abs(mine - other) <= TOLERANCE * max(1.0, abs(other)) + slack:
            findings.faults.append(
                f"{row.where}: the {what} action token {i + 1} is {mine:.6g}, computed again {other:.6g}"
            )
            return
