"""What the run that another one begins with has measured, so that it need not be measured again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_agents.evaluation.result import Result


def results_of(checkpoint: Path, steps: int, by: Mapping[str, str]) -> dict[str, Result]:
    """By place (``test``, and those elsewhere), the results of these very weights.

    Args:
        checkpoint: in ``checkpoints/<stage>/`` of a run folder.
        steps: the optimizer steps behind it; a stage that has gone on since was not measured with these weights.
        by: see `measured`; what other means found counts for nothing.

    Returns:
        Nothing if that run has not measured them, or is not to be read.
    """
    stage = checkpoint.parent.name
    try:
        summary: dict[str, Any] = json.loads((checkpoint.parents[2] / "summary.json").read_text(encoding="utf-8"))
        if summary["measured"][stage] != measured(checkpoint, steps, by):
            return {}
        found = {"test": summary["success"][stage]} | summary["elsewhere"].get(stage, {})
        return {place: Result.from_json(result) for place, result in found.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return {}


def measured(checkpoint: Path, steps: int, by: Mapping[str, str]) -> dict[str, Any]:
    """How a run's summary says which weights a result is of, and by what means they played.

    Args:
        by: versions, precision, device and engine: with others the same weights may say other words.
    """
    return {"checkpoint": checkpoint.name, "steps": steps, "by": dict(by)}
