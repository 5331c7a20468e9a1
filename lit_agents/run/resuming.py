"""Under which conditions a run may go on: those it began under, unless asked for, and then what was written after is marked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import yaml

from lit_agents.errors import BadInput
from lit_agents.evaluation.result import Conditions
from lit_agents.run.folder import Mark
from lit_agents.system.nested import leaves

FREE = (
    # how long it runs, what is shown and kept
    "trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "watch", "keep_weights", "name", "trainer.logger",
    "trainer.log_every_n_steps", "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.profiler",
    "trainer.default_root_dir", "trainer.detect_anomaly", "data.schedule.max_failures",
    # where it is computed, and how much at once
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "preflight",
    "data.schedule.micro_batch_tokens", "data.limits.concurrent", "data.engine.init_args.prefill_tokens",
    "data.engine.init_args.cache_gb", "data.environment.init_args.workers",
    # where files lie whose content is compared
    "data.environment.init_args.folder", "model.init_args.policy.init_args.weights",
)  # fmt: skip
"""Settings (each with all below it) that a resumed run may have otherwise. What is not listed is compared, so that a new setting
is never overlooked; see `_free` for those that are free under a condition."""
ABSENT = "nothing"
"""The value of a setting that a configuration does not have."""

Differences = dict[str, tuple[Any, Any]]
"""By setting, its value before and now."""


@dataclass(frozen=True)
class Change:
    """A run went on under other conditions."""

    written: Mark
    """How long the growing files were."""
    after: str
    """The iteration they ended with, for people."""
    measured: tuple[str, ...]
    """Stages that had been tested by then."""
    different: Mapping[str, Sequence[Any]]
    """See `Differences`."""

    @property
    def sentence(self) -> str:
        """For a title, a gap or a label."""
        found = ", ".join(f"{name} {before} -> {now}" for name, (before, now) in self.different.items())
        return f"resumed under other conditions after {self.after}: {found}"

    def as_json(self) -> dict[str, Any]:
        """For ``summary.json``."""
        return json.loads(json.dumps(asdict(self) | {"sentence": self.sentence}, default=str))  # type: ignore[no-any-return]

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Change:
        """The inverse."""
        written, measured = Mark(**content["written"]), tuple(content["measured"])
        return Change(written, content["after"], measured, content["different"])

    def cut(self, mark: Mark, after: str, measured: Sequence[str]) -> Change | None:
        """What is left of it where a run goes back to an earlier moment; None where nothing from before it is kept."""
        earlier = replace(self, written=mark, after=after) if mark < self.written else self
        left = tuple(stage for stage in self.measured if stage in measured)
        return replace(earlier, measured=left) if left or earlier.written > Mark() else None


def config_differences(before: str, now: str) -> Differences:
    """What two resolved configurations differ in, apart from what is free; each the text of a ``config.yaml``."""
    first, second = (_compared(dict(yaml.safe_load(text))) for text in (before, now))
    names = [*first, *(name for name in second if name not in first)]
    pairs = {name: (first.get(name, ABSENT), second.get(name, ABSENT)) for name in names}
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    free = _free(config)
    flat = {n: v for n, v in leaves(config) if not any(n == name or n.startswith(f"{name}.") for name in free)}
    if start := config.get("start_from"):  # the folder above its run may have been moved
        flat["start_from"] = "/".join(str(start).split("/")[-4:])
    return flat


def _free(config: Mapping[str, Any]) -> set[str]:
    """The length of a run that anneals is part of its learning rate, and the number of processes of how minibatches are cut."""
    free = set(FREE)
    if config["model"]["init_args"].get("anneal"):
        free -= {"trainer.max_epochs", "trainer.max_steps"}
    if config["data"]["schedule"]["minibatches"] > 1 or (config.get("sft") or {}).get("minibatches", 1) > 1:
        free -= {"trainer.devices", "trainer.num_nodes"}
    return free


def condition_differences(where: str, before: Conditions, now: Conditions) -> Differences:
    """In what a measurement would differ from an earlier one in this run: tasks, their files, versions of the environment."""
    first, second = (dict(leaves(json.loads(json.dumps(asdict(conditions))))) for conditions in (before, now))
    names = dict.fromkeys([*first, *second])
    pairs = {f"{where}: {name}": (first.get(name, ABSENT), second.get(name, ABSENT)) for name in names}
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def refuse_different(different: Differences, folder: str, allowed: bool) -> None:
    """Refuse to mix rows of unlike conditions in one table.

    Raises:
        BadInput: something differs, and that was not allowed; names all of it.
    """
    if different and not allowed:
        found = "; ".join(f"{name} was {before}, is {now}" for name, (before, now) in different.items())
        way_out = (
            f"Use {folder}/config.yaml, begin another run, or give --allow_different true, which marks what follows."
        )
        raise BadInput("--ckpt_path", f"the run was begun under other conditions: {found}.", way_out)
