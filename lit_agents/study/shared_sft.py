"""Which part of a configuration decides what its supervised stage comes to; what agrees in it shares one stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_agents.system.files import hash_of

OF_RL = {
    "data": ("reward",),
    "trainer": ("max_epochs", "check_val_every_n_epoch", "logger"),
    "schedule": ("tasks", "group_size", "passes", "minibatches", "resample_rounds"),
    "sampling": ("temperature", "top_p", "top_k"),
}
"""Settings that the supervised stage does not look at. What is not listed counts, so a new setting is never overlooked;
data.train_tasks does, as they must not be the tasks that are demonstrated."""
OF_RL_ALONE = ("name", "budget", "watch", "keep_weights", "preflight")


def shared_stage(config: Mapping[str, Any], demonstrations: int) -> dict[str, Any] | None:
    """Settings that make a run of the supervised stage alone out of a run that has both; None if there is none in it.

    Nor is one shared that the untouched model is kept beside, as a reference for RL: another run begins with what came out of it.
    """
    keeps_the_untouched = (config["model"]["init_args"].get("kl") or {}).get("reference") == "base"
    if not config["sft"] or not demonstrations or keeps_the_untouched:
        return None
    return {"sft": {"demonstrations": demonstrations}, "budget": None, "trainer": {"max_epochs": 0}}


def stage_digest(config: Mapping[str, Any], demonstrations: int) -> str:
    """Equal for runs whose supervised stages are equal, whatever the algorithm that follows."""
    stage = {name: value for name, value in config.items() if name not in OF_RL_ALONE}
    stage["data"], stage["trainer"] = (_without(config[part], part) for part in ("data", "trainer"))
    for part in ("schedule", "sampling"):
        stage["data"][part] = _without(config["data"][part], part)
    stage["model"] = config["model"]["init_args"]["policy"]
    stage["start_from"] = start_of(config)
    stage["sft"] = {**config["sft"], "demonstrations": demonstrations}
    return hashlib.sha256(json.dumps(stage, sort_keys=True, default=str).encode()).hexdigest()[:12]


def start_of(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """The checkpoint that a run begins with, and what it holds: it may be made anew under its name."""
    start = config.get("start_from")
    return start and (start, hash_of(Path(start)) if Path(start).is_file() else "")


def _without(settings: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in OF_RL[part]}
