"""What a report is made from: settings, each with the runs of its seeds, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lit_agents.errors import BadInput
from lit_agents.evaluation.result import Conditions, differences
from lit_agents.evaluation.stats.pass_at_k import Tally
from lit_agents.report.group_runs import grouped
from lit_agents.run.record import TEST, Record
from lit_agents.study.reference import Paper
from lit_agents.study.study_json import TRIALS, found_again


@dataclass(frozen=True)
class Setting:
    """Runs that differ in nothing but their seed."""

    label: str
    records: tuple[Record, ...]
    """By seed; at least one."""

    @property
    def stages(self) -> list[str]:
        """Those that all its runs were measured after."""
        return list(self.records[0].stages)

    @property
    def last(self) -> str:
        """The stage that counts."""
        return self.stages[-1]

    def has(self, place: str, stage: str) -> bool:
        """Whether it was measured there."""
        return stage in self.stages and place in self.records[0].stages[stage]

    def tallies(self, place: str, stage: str, seeds: Iterable[int] | None = None) -> list[Tally]:
        """Of each seed, or of these."""
        chosen = None if seeds is None else set(seeds)
        return [r.result(place, stage).by_task for r in self.records if chosen is None or r.seed in chosen]

    def conditions(self, place: str, stage: str) -> Conditions:
        """Of the measurement; the same for all seeds."""
        return self.records[0].result(place, stage).conditions

    @property
    def seeds(self) -> list[int]:
        """Of its runs."""
        return [record.seed for record in self.records]


@dataclass(frozen=True)
class Material:
    """One study, or runs that were named together."""

    title: str
    settings: tuple[Setting, ...]
    gaps: tuple[str, ...] = ()
    """What is missing, and why; a sentence each."""
    objectives: tuple[str, ...] = (TEST,)
    paper: Paper | None = None
    searched: bool = False
    """Whether a sampler chose settings by the objectives."""

    @property
    def places(self) -> list[str]:
        """Wherever anything was measured, the objectives first."""
        measured = [place for s in self.settings for places in s.records[0].stages.values() for place in places]
        return list(dict.fromkeys([*self.objectives, *measured]))


def read(paths: Sequence[Path]) -> list[Material]:
    """Studies, each by itself, and all run folders together.

    Raises:
        BadInput: a folder is neither, or there is no finished run in any of them.
    """
    studies = [path for path in paths if (path / TRIALS).is_file()]
    runs = [path for path in paths if path not in studies]
    for path in runs:
        if not (path / "config.yaml").is_file():
            reason = f"it holds neither {TRIALS} nor config.yaml."
            raise BadInput(str(path), reason, "Name folders that lit_agents.tune or lit_agents.fit has written.")
    materials = [_of_study(path) for path in studies]
    if runs:
        settings, gaps = grouped(runs)
        materials.append(_sound(Material("runs", tuple(Setting(n, r) for n, r in settings.items()), tuple(gaps))))
    if not any(material.settings for material in materials):
        said = "; ".join(gap for material in materials for gap in material.gaps)
        raise BadInput(", ".join(map(str, paths)), f"there is no finished run ({said}).", "Let one end.")
    return materials


def _of_study(folder: Path) -> Material:
    path = folder / TRIALS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        title, objectives = content["name"], tuple(content["objectives"])
        settings, gaps = [], [f"{content['open']} settings have not been begun."] if content["open"] else []
        for row in content["trials"]:
            label = row["label"]
            if row["state"] != "COMPLETE":
                reason = row["error"] or {"PRUNED": "given up, it fell behind", "RUNNING": "under way"}.get(
                    row["state"]
                )
                gaps.append(f"{label}: {reason or row['state'].lower()}")
                continue
            records, lost = _records(row["runs"], folder)
            gaps += [f"{label}: {sentence}" for sentence in lost]
            settings += [Setting(label, records)] if records else []
        paper = Paper(**content["paper"]) if content["paper"] else None
        order = {name: i for i, name in enumerate(content["order"])}
        searched = bool(content["searched"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it cannot be read as a study ({type(error).__name__}: {error})."
        raise BadInput(str(path), reason, "Call lit_agents.tune again, which writes it anew.") from error
    settings.sort(key=lambda setting: order.get(setting.label, len(order)))
    return _sound(Material(title, tuple(settings), tuple(gaps), objectives, paper, searched))


def _records(runs: Sequence[Mapping[str, Any]], folder: Path) -> tuple[tuple[Record, ...], list[str]]:
    records, lost = [], []
    for run in runs:
        where = found_again(run["folder"], folder)
        try:
            record = Record.of(where, found_again(run["start"], folder) if run["start"] else None)
            if record.changed:  # by hand: a study itself goes on with what it began with
                raise BadInput(str(where), f"it was {'; '.join(record.changed)}.", "Delete it, and call tune again.")
            records.append(record)
        except BadInput as error:
            lost.append(f"a run is left out: {error}")
    return tuple(sorted(records, key=lambda record: record.seed)), lost


def _sound(material: Material) -> Material:
    """Without runs whose objectives were not measured as those of the first run of their setting were."""
    settings, gaps = [], list(material.gaps)
    for setting in material.settings:
        kept = [setting.records[0]]
        for record in setting.records[1:]:
            twin = next((other for other in kept if other.seed == record.seed), None)
            said = f"it has the seed of {twin.folder}." if twin else ""
            if wrong := said or _unlike(record, kept[0], material.objectives):
                gaps.append(f"{setting.label}: {record.folder} is left out: {wrong}")
            else:
                kept.append(record)
        lost = _unlike_places(kept, material.objectives)
        gaps += [f"{setting.label}: {place} is left out: {why}" for place, why in lost.items()]
        starts = [record.began_with for record in kept if record.began_with]
        if (others := len(set(starts))) < len(starts):
            said = f"{len(starts)} seeds share {others} starting point{'s' if others > 1 else ''} ({starts[0]})"
            gaps.append(f"{setting.label}: {said}; the chance of others is in no interval.")
        settings.append(Setting(setting.label, tuple(_without(record, lost) for record in kept)))
    return replace(material, settings=tuple(settings), gaps=tuple(gaps))


def _unlike(record: Record, first: Record, places: Sequence[str]) -> str:
    """Why a run cannot be put together with another one in these places; empty if it can."""
    measured = [[(s, p) for s, found in r.stages.items() for p in found if p in places] for r in (record, first)]
    if measured[0] != measured[1]:
        texts = [", ".join(f"{place} after {stage}" for stage, place in each) or "nothing" for each in measured]
        return f"{record.folder} has {texts[0]}; {first.folder} has {texts[1]}."
    for stage, place in measured[0]:
        mine, others = (vars(r.result(place, stage).conditions) for r in (record, first))
        if found := differences(mine, others):
            return f"its {'; its '.join(found)} as in {first.folder}."
    return ""


def _unlike_places(records: Sequence[Record], objectives: Sequence[str]) -> dict[str, str]:
    """Places beside the objectives where not all seeds were measured, or not alike; and why."""
    more = [place for r in records for found in r.stages.values() for place in found if place not in objectives]
    wrong = {place: [_unlike(record, records[0], [place]) for record in records[1:]] for place in dict.fromkeys(more)}
    return {place: " ".join(filter(None, each)) for place, each in wrong.items() if any(each)}


def _without(record: Record, places: Iterable[str]) -> Record:
    left = {stage: {p: found for p, found in all_.items() if p not in places} for stage, all_ in record.stages.items()}
    return replace(record, stages=left)
