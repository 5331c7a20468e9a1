"""The tables of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

from lit_agents.evaluation.result import Conditions, differences
from lit_agents.evaluation.stats.bootstrap import difference, success
from lit_agents.evaluation.stats.paired import holm, sign_flip
from lit_agents.evaluation.stats.pass_at_k import Tally
from lit_agents.report.load import Material
from lit_agents.run.folder import STAGES
from lit_agents.run.record import START

ORDER = (START, *STAGES)
MOST_COMPARED = 8
"""Settings of which each is compared with each; of more, the highest."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    signed: bool = False
    """Whether it is a difference."""

    def __str__(self) -> str:
        form = "+.3f" if self.signed else ".3f"
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


Cell = str | int | float | Estimate | None
"""None where there is nothing."""


@dataclass(frozen=True)
class Table:
    """One table; its name is that of its CSV file."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def tables(material: Material) -> list[Table]:
    """All that there is something for."""
    found = [*chosen(material)]
    found += [table for place in material.places for table in (levels(material, place), gains(material, place))]
    found += [compared(material, place) for place in material.places]
    found += [cost(material), *paper(material)]
    return [table for table in found if table.rows]


def levels(material: Material, place: str) -> Table:
    """Success after every stage, over seeds and tasks."""
    stages = sorted({stage for s in material.settings for stage in s.stages if s.has(place, stage)}, key=ORDER.index)
    rows = []
    for setting in (s for s in material.settings if s.has(place, s.last)):
        cells = [
            Estimate(*success(setting.tallies(place, stage))) if setting.has(place, stage) else None for stage in stages
        ]
        last = [record.result(place, setting.last) for record in setting.records]
        each = "; ".join(
            f"{record.seed}: {result.rate:.3f}" for record, result in zip(setting.records, last, strict=True)
        )
        tasks = len({task for result in last for task in result.by_task})
        counts = (sum(result.n for result in last), tasks, sum(result.failures for result in last))
        rows.append((setting.label, *cells, each, *counts))
    note = "Mean over seeds and tasks; the interval is a bootstrap that draws both again. n: sound episodes after the last stage."
    columns = ("setting", *stages, "last stage, by seed", "n", "tasks", "failures")
    return Table(f"success_{place}", f"Success: {place}", note + unlike(material, place), columns, tuple(rows))


def gains(material: Material, place: str) -> Table:
    """What each stage gained over the one before."""
    met = {step for s in material.settings for step in pairwise(s.stages)}
    steps = sorted(met, key=lambda step: (ORDER.index(step[1]) - ORDER.index(step[0]), ORDER.index(step[0])))
    rows = []
    for setting in material.settings:
        row: list[Cell] = [setting.label]
        for before, after in steps:
            there = setting.has(place, before) and setting.has(place, after)
            there = there and not differences(*(vars(setting.conditions(place, stage)) for stage in (before, after)))
            row += _paired(setting.tallies(place, after), setting.tallies(place, before)) if there else [None, None]
        if any(cell is not None for cell in row[1:]):
            rows.append(tuple(row))
    columns = [name for before, after in steps for name in (f"{after} - {before}", f"p ({after} - {before})")]
    note = PAIRED + (" No p is corrected for how many there are." if len(rows) > 1 else "")
    return Table(f"gain_{place}", f"Gain of a stage: {place}", note, ("setting", *columns), tuple(rows))


PAIRED = (
    "Paired by seed and task. The interval draws seeds and tasks again; p is of a sign-flip test over the tasks, two-sided, for "
    "these runs: with few seeds neither says much about another seed."
)


def compared(material: Material, place: str) -> Table:
    """Settings against each other, after their last stages."""
    there = [s for s in material.settings if s.has(place, s.last)]
    by = material.objectives[0] if material.searched else place  # tests are not what a search goes by
    rates = {s.label: success(s.tallies(by, s.last))[0] for s in there}
    highest = sorted(there, key=lambda s: -rates[s.label])[:MOST_COMPARED]
    rows: list[list[Cell]] = []
    for first, second in combinations(highest, 2):
        seeds = [seed for seed in first.seeds if seed in second.seeds]
        if seeds and _same_tasks(*(s.conditions(place, s.last) for s in (first, second))):
            pair = [s.tallies(place, s.last, seeds) for s in (first, second)]
            rows.append([first.label, second.label, *_paired(*pair), len(seeds)])
    rows = [row for row in rows if row[3] is not None]
    corrected = holm([p for row in rows if isinstance(p := row[3], float)])
    full = tuple((*row[:4], p, row[4]) for row, p in zip(rows, corrected, strict=True))
    note = PAIRED + unlike(material, place) + " The second p is Holm's, for as many comparisons as there are rows."
    note += f" The {MOST_COMPARED} highest of {len(there)}." if len(there) > MOST_COMPARED else ""
    columns = ("setting", "against", "difference", "p", "p, corrected", "seeds")
    return Table(f"compared_{place}", f"Compared: {place}", note, columns, full)


def chosen(material: Material) -> Iterator[Table]:
    """What a search comes to: the settings that no other one beats in its objectives, and what they do elsewhere."""
    if not material.searched or not material.settings:
        return
    points = [[success(s.tallies(place, s.last))[0] for place in material.objectives] for s in material.settings]
    rows = []
    for number in reversed(front(points)):
        setting = material.settings[number]
        there = [setting.has(place, setting.last) for place in material.places]
        cells = [
            Estimate(*success(setting.tallies(place, setting.last))) if has else None
            for place, has in zip(material.places, there, strict=True)
        ]
        rows.append((setting.label, *cells))
    note = f"Chosen by {' and '.join(material.objectives)}, where the best of many looks better than it is; the other columns had"
    columns = ("setting", *material.places)
    other = "".join(dict.fromkeys(unlike(material, place) for place in material.places))
    yield Table("chosen", "Chosen", f"{note} no part in the choice.{other}", columns, tuple(rows))


def _paired(first: list[Tally], second: list[Tally]) -> list[Cell]:
    shared = [task for task in first[0] if all(task in tally for tally in (*first, *second))]
    if not shared:
        return [None, None]
    mean, low, high = difference(first, second)
    per_task = [sum(_rate(a, t) - _rate(b, t) for a, b in zip(first, second, strict=True)) / len(first) for t in shared]
    return [Estimate(mean, low, high, signed=True), sign_flip([round(gain, 12) for gain in per_task])]


def _rate(tally: Tally, task: str) -> float:
    won, n = tally[task]
    return won / n


def _same_tasks(first: Conditions, second: Conditions) -> bool:
    return first.environment.get("task_files") == second.environment.get("task_files")


def unlike(material: Material, place: str) -> str:
    """In what the settings were measured differently, as sentences; empty if in nothing."""
    there = [s for s in material.settings if s.has(place, s.last)]
    found: dict[str, None] = {}
    for other in there[1:]:
        pair = [vars(s.conditions(place, s.last)) for s in (other, there[0])]
        found |= dict.fromkeys(sentence.split(" is ")[0] for sentence in differences(*pair))
    return f" Measured with different {', '.join(found)}." if found else ""


OF_EPISODES = ("demonstrations", "episodes", "games", "failed_episodes", "turns")
OF_TOKENS = ("tokens_sampled", "tokens_trained", "tokens_computed")


def cost(material: Material) -> Table:
    """What a run of each setting spent, in the mean over its seeds."""
    means: dict[str, dict[str, float]] = {}
    for setting in material.settings:
        spent = [_spent(record.ledger) for record in setting.records]
        means[setting.label] = {name: round(sum(e.get(name, 0) for e in spent) / len(spent), 1) for name in spent[0]}
    columns = max(means.values(), key=len, default={})  # units are there where there is a budget
    rows = [(label, *(found.get(name) for name in columns)) for label, found in means.items()]
    note = (
        "Per run, mean over seeds; a shared supervised stage is in every run that began with it. Tests cost no budget."
    )
    return Table("cost", "Cost", note, ("setting", *columns), tuple(rows))


def _spent(ledger: Mapping[str, Any]) -> dict[str, float]:
    account, seconds = ledger.get("budget") or {}, ledger["seconds"]
    names = {"sft": "units: sft", "rl": "units: rl", "remainder": "units left"}
    found = {title: account[part] for part, title in names.items() if part in account}
    found |= {name.replace("_", " "): ledger[name] for name in OF_EPISODES + OF_TOKENS}
    found |= {f"seconds: {stage}": seconds.get(stage, 0.0) for stage in ("sft", "rl")}
    return found | {"seconds: tests": sum(value for part, value in seconds.items() if "/" in part)}


def paper(material: Material) -> Iterator[Table]:
    """The paper's rows beside ours."""
    if not material.paper:
        return
    found = {setting.label: setting for setting in material.settings}
    rows = []
    for label, theirs in material.paper.rows.items():
        row: list[Cell] = [label]
        for place, value in zip(material.objectives, theirs, strict=True):
            setting = found.get(label)
            ours = setting and setting.has(place, setting.last) and success(setting.tallies(place, setting.last))
            row += [value, Estimate(*ours) if ours else None]
        rows.append(tuple(row))
    columns = [name for place in material.objectives for name in (f"paper: {place}", f"here: {place}")]
    note = f"{material.paper.source}. Other set-up: {'; '.join(material.paper.differences)}."
    yield Table("paper", "The paper's numbers beside these", note, ("setting", *columns), tuple(rows))


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """Numbers of the points that no other one is at least as large as in everything, and larger in something; smallest first."""
    kept = [i for i, point in enumerate(points) if not any(_beats(other, point) for other in points)]
    return sorted(kept, key=lambda i: tuple(points[i]))


def _beats(other: Sequence[float], point: Sequence[float]) -> bool:
    return tuple(other) != tuple(point) and all(a >= b for a, b in zip(other, point, strict=True))
