"""Rates, counts and costs of a run, computed again from its stored episodes with plain loops.

What is compared was computed by `lit_agents.evaluation.metrics` and `lit_agents.rollout.ledger` while the run was on. Only the
interval of a rate is the same function called again; its tests hold it against worked numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lit_agents.evaluation.audit.attempts import group_fate
from lit_agents.evaluation.audit.facts import Facts
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.evaluation.stats.pass_at_k import rate_interval
from lit_agents.types import StopReason

WHAT = "numbers computed again"
GROUPS = ("groups_played", "groups_dropped", "groups_without_signal")


def tally_of(found: Iterable[Facts]) -> dict[str, tuple[int, int]]:
    """By task: episodes won, and episodes played that are no failure; in the order of the tasks."""
    counts: dict[str, tuple[int, int]] = {}
    for facts in found:
        if not facts.stop.is_failure:
            won, n = counts.get(facts.task, (0, 0))
            counts[facts.task] = won + (facts.stop is StopReason.WON), n + 1
    return counts


def numbers_of(found: Sequence[Facts]) -> dict[str, float]:
    """What `lit_agents.evaluation.metrics.EpisodeMetrics` says of these episodes; without what is a mean over nothing."""
    sound = [facts for facts in found if not facts.stop.is_failure]
    failures = [facts for facts in found if facts.stop.is_failure]
    n, turns = len(sound), sum(len(facts.lengths) for facts in sound)
    played = [valid for facts in sound for valid in facts.valid]
    unfinished = sum(facts.stop is StopReason.UNFINISHED_ACTION for facts in sound)
    means = {
        "success": (sum(facts.stop is StopReason.WON for facts in sound), n),
        "return": (math.fsum(facts.total for facts in sound), n),
        "turns": (turns, n),
        "invalid_rate": (played.count(False), len(played)),
        "unfinished_rate": (unfinished, turns),
        "action_tokens": (sum(sum(facts.lengths) for facts in sound), turns),
        "slid": (sum(facts.slid for facts in sound), n),
    }
    stops = Counter(facts.stop for facts in found)
    means |= {f"stop/{stop.value}": (stops[stop], n) for stop in StopReason if not stop.is_failure}
    low, high = rate_interval(tally_of(sound))
    numbers = {"n": float(n), "success_low": low, "success_high": high, "failures": float(len(failures))}
    numbers |= {f"failure/{stop.value}": float(stops[stop]) for stop in StopReason if stop.is_failure}
    numbers |= {name: total / count for name, (total, count) in means.items() if count}
    return numbers | _by_label(sound)


def _by_label(sound: Sequence[Facts]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    by_label: dict[str, list[Facts]] = {}
    for facts in sound:
        for label, value in facts.labels.items():
            by_label.setdefault(f"{label}={value}", []).append(facts)
    for label, some in by_label.items():
        low, high = rate_interval(tally_of(some))
        won = sum(facts.stop is StopReason.WON for facts in some)
        numbers |= {f"success/{label}": won / len(some), f"n/{label}": float(len(some))}
        numbers |= {f"success_low/{label}": low, f"success_high/{label}": high}
    return numbers


def groups_of(found: Sequence[Facts], compares: bool, demonstrated: bool) -> dict[str, float]:
    """How many groups an iteration played, dropped, and found without signal."""
    groups: dict[tuple[int, int, str], list[Facts]] = {}
    for facts in found:
        groups.setdefault((facts.round, facts.place, facts.task), []).append(facts)
    sound = [[facts for facts in members if not facts.stop.is_failure] for members in groups.values()]
    fates = Counter(group_fate(members, compares, demonstrated) for members in sound)
    return dict(zip(GROUPS, map(float, (len(groups), fates["dropped"], fates["silent"])), strict=True))


def same(first: Any, second: Any) -> bool:
    """Whether two numbers are equal but for the order in which they were added up."""
    if isinstance(first, int | float) and isinstance(second, int | float):
        return math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12)
    return bool(first == second)


def compare(noted: Mapping[str, Any], again: Mapping[str, Any], where: str, findings: Findings) -> None:
    """Every number of both."""
    for name in sorted(noted.keys() | again.keys()):
        fault = f"{where}: {name} is {noted.get(name)}, computed again from episodes.jsonl {again.get(name)}"
        findings.expect(name in noted and name in again and same(noted[name], again[name]), WHAT, fault)


def check_row(row: Mapping[str, str], line: int, parts: Mapping[str, Mapping[str, float]], findings: Findings) -> None:
    """A row of ``metrics.csv``.

    Args:
        parts: by ``rollout`` and ``validation``, what was computed again; a part without episodes is left out.
    """
    where = f"metrics.csv line {line} ({row['stage']}, iteration {row['iteration']})"
    again = {f"{part}/{name}": value for part, numbers in parts.items() for name, value in numbers.items()}
    mine = {}
    for name, value in row.items():
        if name in again or (name.startswith("validation/") or name == "rollout/success"):
            mine[name] = float(value)
        elif name not in ("stage", "iteration", "step"):
            findings.unchecked[f"{name.partition('/')[0]}/* of metrics.csv beyond episodes, groups and rates"] += 1
    compare(mine, again, where, findings)


def check_result(noted: Mapping[str, Any], found: Sequence[Facts], where: str, findings: Findings) -> None:
    """A result in ``summary.json``."""
    numbers = numbers_of(found)
    again: dict[str, Any] = {
        "rate": numbers.get("success"), "n": numbers["n"], "low": numbers["success_low"],
        "high": numbers["success_high"], "turns": numbers.get("turns"), "failures": numbers["failures"],
    }  # fmt: skip
    compare({name: noted[name] for name in again}, again, where, findings)
    compare(noted["numbers"], numbers, f"{where}, numbers", findings)
    counts = {task: list(count) for task, count in tally_of(found).items()}
    compare(noted["by_task"], counts, f"{where}, by_task", findings)
    tasks = list(dict.fromkeys(facts.task_line for facts in found))
    files = hashlib.sha256("\n".join(tasks).encode()).hexdigest()[:16]
    world = {name: noted["conditions"]["environment"].get(name) for name in ("tasks", "task_files")}
    compare(world, {"tasks": str(len(tasks)), "task_files": files}, f"{where}, conditions", findings)


def ledger_of(sft: Sequence[Facts], rl: Sequence[Facts], trained: int) -> dict[str, int]:
    """What ``ledger.json`` says of training episodes; see `lit_agents.rollout.ledger.Ledger`."""
    demonstrations = [facts for facts in sft if not facts.stop.is_failure]
    episodes = [facts for facts in rl if not facts.stop.is_failure]
    return {
        "demonstrations": len(demonstrations),
        "demonstrations_lost": sum(facts.stop is not StopReason.WON for facts in demonstrations),
        "episodes": len(episodes),
        "games": len({facts.task for facts in rl if facts.round == 0}),
        "failed_episodes": len(sft) + len(rl) - len(demonstrations) - len(episodes),
        "turns": sum(len(facts.lengths) for facts in (*demonstrations, *episodes)),
        "tokens_sampled": sum(sum(facts.lengths) for facts in episodes),
        "tokens_trained": trained,
    }
