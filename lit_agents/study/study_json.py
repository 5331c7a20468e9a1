"""A study's trials as one file, which a report is made from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lit_agents.study import storage
from lit_agents.study.config import Study
from lit_agents.study.factors import label_of
from lit_agents.system.files import write_whole

TRIALS = "study.json"


def latest(trials: optuna.Study) -> list[FrozenTrial]:
    """In order; of one that was made again the last attempt alone, and none of what two workers would have made twice."""
    listed = trials.get_trials(deepcopy=False)
    again = {number for trial in listed for number in trial.system_attrs.get(storage.RETRIED, [])}
    return [trial for trial in listed if trial.number not in again and storage.SURPLUS not in trial.user_attrs]


def write_trials(trials: optuna.Study, study: Study, home: Path) -> None:
    """``study.json`` in the study's folder."""
    rows = [_row(trial) for trial in latest(trials) if trial.state != TrialState.WAITING]
    begun = len(rows)
    first = {row["label"]: row["number"] for row in reversed(rows) if row["state"] == TrialState.COMPLETE.name}
    rows = [
        row for row in rows if first.get(row["label"], row["number"]) == row["number"]
    ]  # a search may repeat itself
    order = study.labels()
    content = {
        "name": study.name,
        "identity": study.identity(),
        "factors": {name: factor.choices for name, factor in study.factors.items()},
        "objectives": study.objectives,
        "searched": study.sampler is not None,
        "seeds": study.seeds,
        "budget": study.total,
        "paper": study.paper and asdict(study.paper),
        "order": order,
        "open": max(0, (study.trials or len(order)) - begun),
        "trials": rows,
    }
    write_whole(home / TRIALS, json.dumps(content, indent=1) + "\n")


def found_again(folder: str, home: Path) -> Path:
    """A run of a study whose folder may have been moved since."""
    path = Path(folder)
    return home / path.parent.name / path.name


def _row(trial: FrozenTrial) -> dict[str, Any]:
    known = {name: trial.user_attrs.get(name) for name in ("setting", "intervals", "runs", "error")}
    runs = [{"folder": run["folder"], "start": run["start"]} for run in known["runs"] or []]
    label = label_of(known["setting"] or {}) or f"trial {trial.number}"
    return {
        "number": trial.number,
        "label": label,
        "state": trial.state.name,
        "values": trial.values,
        **known,
        "runs": runs,
    }
