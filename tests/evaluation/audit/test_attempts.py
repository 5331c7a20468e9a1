"""Which episodes are missing, double or out of turn, on lists written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lit_agents.evaluation.audit.attempts import AttemptAudit, Expected
from lit_agents.evaluation.audit.facts import Facts
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.rng import stream
from lit_agents.types import StopReason

PLAN = Expected(tasks=2, group_size=2, retries=1, of=3, seed=5, compares=True, resample_rounds=1)
FACTS = Facts(1, "rl", 1, "", "", {}, 0, 0, 0, 0, StopReason.LOST, True, (0.0,), (1,), (), False, 0)
CRASH = StopReason.ENVIRONMENT_CRASH


def task(iteration: int, place: int, round_: int = 0) -> str:
    """The task whose turn it is, of three called 0, 1 and 2; see `lit_agents.rollout.task_sampler.TaskSampler`."""
    if round_:
        return str(stream("resample", 5, iteration - 1, round_).integers(3, size=2)[place])
    around, number = divmod((iteration - 1) * 2 + place, 3)
    return str(stream("tasks", 5, around).permutation(3)[number])


def group(iteration: int, place: int, rewards: tuple[float, ...], round_: int = 0) -> list[Facts]:
    name = task(iteration, place, round_)
    shared = replace(FACTS, iteration=iteration, place=place, round=round_, task=name)
    return [replace(shared, member=m, rewards=(reward,)) for m, reward in enumerate(rewards)]


def two_iterations() -> list[Facts]:
    """The second group of the first iteration teaches nothing, so another one is played."""
    first = group(1, 0, (0, 1)) + group(1, 1, (1, 1)) + group(1, 0, (1, 0), round_=1)
    return first + group(2, 0, (0, 1)) + group(2, 1, (1, 0))


def faults(found: list[Facts], plan: Expected = PLAN) -> list[str]:
    audit, findings = AttemptAudit(plan), Findings()
    for number, facts in enumerate(found, start=1):
        audit.add(replace(facts, line=number))
    audit.check("rl", findings)
    return findings.faults


def test_what_was_played_in_turn_has_no_fault():
    assert faults(two_iterations()) == []
    failed = two_iterations()
    failed[0] = replace(failed[0], attempt=1)
    failed.append(replace(failed[0], attempt=0, stop=CRASH))
    assert faults(failed) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.pop(3), "there are the members [0]"),
        (lambda e: e.append(e[3]), "line 4 has the same episode"),
        (lambda e: e.__delitem__(slice(6, 8)), "round 0: 1 groups or tasks, and 2 were to be played"),
        (lambda e: e.__delitem__(slice(4, 6)), "1 groups taught nothing, and no others were played"),
        (lambda e: e.append(replace(e[0], attempt=1)), "it is sound, and there is another attempt"),
        (lambda e: e.__setitem__(0, replace(e[0], stop=CRASH)), "it failed, and there is no other attempt"),
        (lambda e: e.__setitem__(0, replace(e[0], attempt=1)), "attempt 0 of 2 is missing"),
        (lambda e: [e.__setitem__(i, replace(e[i], place=2)) for i in (6, 7)], "the places of its groups are [1, 2]"),
        (lambda e: [e.__setitem__(i, replace(e[i], task="9")) for i in (8, 9)], "it was the turn of"),
    ],
)
def test_each_fault_is_named(change, words: str):
    found = two_iterations()
    change(found)
    assert any(words in fault for fault in faults(found)), faults(found)
