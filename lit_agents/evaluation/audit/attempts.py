"""Is every episode that was to be played there, once, with the task that was its turn?

What was to be played follows from the configuration alone: the tasks of an iteration from the seed, its groups from the
schedule, another attempt from the failure of the one before. Tasks are told apart by their number in the shuffled order:
one number is one task in all iterations, so the games themselves are not needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from lit_agents.evaluation.audit.facts import Facts
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.rng import stream

WHAT = "episodes that are there once"


@dataclass(frozen=True)
class Expected:
    """What each iteration of a stage, or each measurement, plays."""

    tasks: int
    """Groups in an iteration."""
    group_size: int
    retries: int
    of: int = 0
    """Training tasks they are drawn from; 0 where each is played once."""
    seed: int = 0
    last: bool = True
    """Whether the last iteration has as many groups as the others; with a budget it need not."""
    compares: bool = False
    resample_rounds: int = 0


@dataclass
class AttemptAudit:
    """Episodes of one phase, iteration by iteration.

    Args:
        expected: see there.
    """

    expected: Expected
    found: dict[int, list[Facts]] = field(default_factory=dict)

    def add(self, facts: Facts) -> None:
        """An episode."""
        self.found.setdefault(facts.iteration, []).append(facts)

    def check(self, name: str, findings: Findings) -> None:
        """Hold all of them against what was to be played."""
        tasks: dict[int, str] = {}
        numbers: dict[str, int] = {}
        for iteration in sorted(self.found):
            here, attempts = f"episodes.jsonl, {name}, iteration {iteration}", self.found[iteration]
            _check_attempts(attempts, self.expected, here, findings)
            self._check_groups(attempts, iteration == max(self.found), here, findings)
            if not self.expected.of:
                continue
            for facts in attempts:
                number = self._number(facts)
                known, mine = tasks.setdefault(number, facts.task), numbers.setdefault(facts.task, number)
                fault = f"{facts.where}: it was the turn of {known}, task number {number}"
                if known == facts.task:
                    fault = f"{facts.where}: its task has the numbers {mine} and {number}"
                findings.expect((known, mine) == (facts.task, number), "tasks in their order", fault)

    def _check_groups(self, attempts: Sequence[Facts], last: bool, here: str, findings: Findings) -> None:
        """As many groups as were to be played, each with all its members."""
        plan, groups = self.expected, _groups(attempts)
        rounds = Counter(round_ for round_, _, _ in groups)
        missing = plan.tasks
        for round_ in range(max(rounds) + 1):
            places = sorted(place for r, place, _ in groups if r == round_)
            good = rounds[round_] == missing or (last and not plan.last)
            fault = f"{here}, round {round_}: {rounds[round_]} groups or tasks, and {missing} were to be played"
            findings.expect(good, "groups that are there", fault)
            if plan.of and round_ == 0:
                fault = f"{here}: the places of its groups are {places}"
                findings.expect(places == list(range(len(places))), "groups that are there", fault)
            missing -= sum(_teaches(members, plan.compares) for (r, *_), members in groups.items() if r == round_)
        if missing and max(rounds) < plan.resample_rounds:
            findings.faults.append(f"{here}: {missing} groups taught nothing, and no others were played in their place")
        for (round_, place, task), members in groups.items():
            there = {facts.member for facts in members}
            fault = f"{here}: of task {task} (round {round_}, place {place}) there are the members {sorted(there)}"
            findings.expect(there == set(range(plan.group_size)), "members that are there", fault)

    def _number(self, facts: Facts) -> int:
        """Number of the task among the training tasks; see `lit_agents.rollout.task_sampler.TaskSampler`."""
        plan, iteration = self.expected, facts.iteration - 1
        if facts.round:
            drawn = stream("resample", plan.seed, iteration, facts.round).integers(plan.of, size=plan.tasks)
            return int(drawn[facts.place])
        around, place = divmod(iteration * plan.tasks + facts.place, plan.of)
        return _order(plan.seed, around, plan.of)[place]


@lru_cache(maxsize=4)
def _order(seed: int, around: int, count: int) -> tuple[int, ...]:
    return tuple(stream("tasks", seed, around).permutation(count).tolist())


def _groups(attempts: Iterable[Facts]) -> dict[tuple[int, int, str], list[Facts]]:
    groups: dict[tuple[int, int, str], list[Facts]] = {}
    for facts in attempts:
        groups.setdefault((facts.round, facts.place, facts.task), []).append(facts)
    return groups


def _teaches(members: Sequence[Facts], compares: bool) -> bool:
    """Whether a group is kept in its round."""
    return group_fate([facts for facts in members if not facts.stop.is_failure], compares) == "kept"


def group_fate(sound: Sequence[Facts], compares: bool, demonstrated: bool = False) -> str:
    """``dropped``, ``silent`` (all earned the same) or ``kept``, by the rules of `lit_agents.rollout.group_collector`."""
    lost = demonstrated and any(facts.stop.value != "won" for facts in sound)
    if lost or len(sound) < (2 if compares else 1):
        return "dropped"
    totals = [facts.total for facts in sound]
    low, high = min(totals), max(totals)
    return "silent" if compares and high - low <= 1e-6 * max(1.0, abs(low), abs(high)) else "kept"


def _check_attempts(found: Sequence[Facts], plan: Expected, here: str, findings: Findings) -> None:
    """Attempts 0, 1, 2 ... of each member, each after a failure, and the last one sound unless there was no other."""
    seats: dict[tuple[int, int, str, int], dict[int, Facts]] = {}
    for facts in found:
        mine = seats.setdefault(facts.seat, {})
        twin = mine.setdefault(facts.attempt, facts)
        findings.expect(twin is facts, WHAT, f"{facts.where}: line {twin.line} has the same episode")
    for (_, _, task, member), attempts in seats.items():
        for number in range(max(attempts) + 1):
            fault = f"{here}, task {task}, member {member}: attempt {number} of {max(attempts) + 1} is missing"
            findings.expect(number in attempts, WHAT, fault)
        for number, facts in attempts.items():
            again = number + 1 in attempts
            due = facts.stop.is_failure and number < plan.retries and facts.playable
            if again and not facts.stop.is_failure:
                findings.faults.append(f"{facts.where}: it is sound, and there is another attempt")
            if due and not again:
                findings.faults.append(f"{facts.where}: it failed, and there is no other attempt")


def distinct_tasks(found: Mapping[int, Sequence[Facts]]) -> int:
    """Training tasks that were played, replacements for silent groups left out."""
    return len({facts.task for some in found.values() for facts in some if facts.round == 0})
