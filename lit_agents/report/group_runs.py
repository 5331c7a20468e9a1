"""Run folders that no study has made: which of them differ in their seed alone, and what the others differ in."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lit_agents.errors import BadInput
from lit_agents.run.record import Record
from lit_agents.system.nested import leaves
from lit_agents.system.yaml_text import read_yaml

LONGEST = 100
"""Characters of a label that says in what settings differ; runs that differ in more are told apart by their names."""
NO_PART = ("name", "seed_everything", "start_from", "keep_weights", "preflight", "elsewhere")
"""Settings that do not make two runs different ones; where a run began and where it was measured is looked at in that run."""


def grouped(folders: Sequence[Path]) -> tuple[dict[str, tuple[Record, ...]], list[str]]:
    """By a label, the runs of each configuration in the order of their seeds; and what had to be left out, with the reason."""
    kept: dict[str, list[Record]] = {}
    configs: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    gaps = []
    for folder in folders:
        try:
            config, start = _config(folder), _start(folder)
            record = Record.of(folder, start)
            if record.last != (wanted := _ends_with(config)):
                raise BadInput(str(folder), f"it has not been tested after {wanted} yet.", "Let the run end.")
        except BadInput as error:
            gaps.append(f"left out: {error}")
            continue
        # unlike rows are in it: it is no seed of the runs that have its last configuration throughout
        flat = _flat(config, start) | {str(number): sentence for number, sentence in enumerate(record.changed, 1)}
        gaps += [f"{folder}: {sentence}" for sentence in record.changed]
        digest = hashlib.sha256(json.dumps(flat, sort_keys=True, default=str).encode()).hexdigest()
        configs[digest], names[digest] = flat, str(config.get("name"))
        kept.setdefault(digest, []).append(record)
    labels = _labels(configs)
    if max(map(len, labels.values()), default=0) > LONGEST and len(set(names.values())) == len(names):
        labels = names
    return {labels[d]: tuple(sorted(runs, key=lambda run: run.seed)) for d, runs in kept.items()}, gaps


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(read_yaml((folder / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise BadInput(str(folder / "config.yaml"), f"it cannot be read ({error}).", "Leave the run out.") from error


def _start(folder: Path) -> Path | None:
    """The run whose supervised stage another one began with, if it can still be read."""
    checkpoint = Path(_config(folder).get("start_from") or "")
    if checkpoint.parent.name != "sft" or len(checkpoint.parts) < 4:
        return None
    start = checkpoint.resolve().parents[2]
    return start if (start / "summary.json").is_file() else None


def _ends_with(config: dict[str, Any]) -> str:
    """The last stage that a configuration asks for."""
    alone = str(config["model"]["class_path"]).endswith(".SFT") or config["trainer"].get("max_epochs") == 0
    return "sft" if alone or (config.get("budget") or {}).get("sft_share") == 1 else "rl"


def _flat(config: dict[str, Any], start: Path | None) -> dict[str, Any]:
    """Every setting that makes a run what it is, those of the run it began with too."""
    own = {name: value for name, value in config.items() if name not in NO_PART}
    own["trainer"] = {name: value for name, value in config["trainer"].items() if name != "logger"}
    flat = {name: value for name, value in leaves(own) if name != "data.environment.init_args.folder"}
    flat = {name: value for name, value in flat.items() if value is not None}  # as where a setting is not known yet
    if start is not None:
        return flat | {f"start: {name}": value for name, value in _flat(_config(start), _start(start)).items()}
    return flat | {"start_from": config.get("start_from")}


def _labels(configs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What each has that others do not; ``all runs`` if there is one configuration."""
    names = sorted({name for config in configs.values() for name in config})
    values = {name: {json.dumps(c.get(name), sort_keys=True, default=str) for c in configs.values()} for name in names}
    varied = [name for name in names if len(values[name]) > 1]
    texts = {
        d: ", ".join(f"{n.removeprefix('model.init_args.')}={c.get(n)}" for n in varied) for d, c in configs.items()
    }
    found, met = {}, Counter[str]()
    for digest, text in texts.items():  # 1 and "1" look alike
        label = text or "all runs"
        met[label] += 1
        found[digest] = label if met[label] == 1 else f"{label} ({met[label]})"
    return found
