"""A study as its file says it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import optuna

from lit_agents.errors import BadInput, refuse_name, refuse_seed
from lit_agents.study.config_merge import Settings, disagreements, found, merged
from lit_agents.study.factors import Factor, Level, label_of, read_settings
from lit_agents.study.reference import Paper

Setting = Mapping[str, Level]
"""A level of every factor."""


@dataclass(frozen=True)
class Wandb:
    """Every run of the study goes there, in one group that has the study's name."""

    project: str
    """The project."""
    entity: str | None = None
    """Whose it is."""
    offline: bool = False
    """Write files to be sent later."""


@dataclass(frozen=True)
class Study:
    """One question: what is varied, over what, and what counts."""

    name: str
    """What its folder and its entry in the storage are called."""
    base: list[str]
    """Configurations of `lit_agents.fit` that every run begins with, later ones over earlier ones."""
    factors: dict[str, Factor]
    """What is varied."""
    settings: Settings = field(default_factory=Settings)
    """Of every run, over its configuration and over levels that are files; nested as in a configuration."""
    over: list[str] = field(default_factory=list)
    """Files laid over the settings: the same study at another scale."""
    seeds: list[int] = field(default_factory=lambda: [1])
    """Every setting is run with each of them; so all settings see the same tasks in the same order."""
    objectives: list[str] = field(default_factory=lambda: ["test"])
    """Success at the end of a run, to be maximised: ``test``, or places of ``settings.elsewhere``."""
    sampler: optuna.samplers.BaseSampler | None = None
    """Which settings are tried; null for every combination of all levels."""
    pruner: optuna.pruners.BasePruner | None = None
    """Which trials are given up early, compared on validation when equally much of the budget is spent."""
    trials: int | None = None
    """How many settings a sampler tries."""
    wandb: Wandb | None = None
    """Where to log besides."""
    paper: Paper | None = None
    """What the paper has to the same question; the report puts it beside what was found."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not self.factors or not self.seeds or not self.objectives or not self.base:
            raise BadInput("study", "it needs base, factors, seeds and objectives.", "See sweeps/ for examples.")
        refuse_name("name", self.name)
        for seed in self.seeds:
            refuse_seed("seeds", seed)
        if len(set(self.seeds)) < len(self.seeds):
            raise BadInput("seeds", "one is named twice.", "Name each once.")
        ranges = [name for name, factor in self.factors.items() if factor.choices is None]
        if self.sampler is None:
            if ranges:
                reason = "a range has no list of values that could all be tried."
                raise BadInput(f"factors.{ranges[0]}", reason, "Give values, or a sampler.")
            if self.trials or self.pruner:
                name = "trials" if self.trials else "pruner"
                raise BadInput(name, "without a sampler every setting is tried to its end.", "Leave it out.")
        elif not self.trials or self.trials < 1:
            raise BadInput("trials", "a sampler goes on for ever.", "Say how many settings are tried.")
        self._check_names()

    def _check_names(self) -> None:
        if self.pruner and len(self.objectives) > 1:
            raise BadInput("pruner", "trials with several objectives cannot be ranked early.", "Leave it out.")
        if self.sampler is not None and (tested := [name for name in self.objectives if self._is_test(name)]):
            reason = f"the sampler would choose settings by {tested[0]}, whose tasks are there to test what was chosen."
            way_out = "Add a place with split: validation to settings.elsewhere, and name it."
            raise BadInput("objectives", reason, way_out)
        if twice := [label for label, count in Counter(self.labels()).items() if count > 1]:
            raise BadInput("factors", f"there are two settings called {twice[0]}.", "Name every value once.")
        if self.wandb and not find_spec("wandb"):
            raise BadInput("wandb", "it is not installed.", 'pip install -e ".[wandb]", or leave it out.')
        if self.paper:
            self.paper.check(self.labels(), len(self.objectives))

    def _is_test(self, objective: str) -> bool:
        places = self.common.get("elsewhere") or {}
        return objective == "test" or (places.get(objective) or {}).get("split", "test") == "test"

    def combinations(self) -> Iterator[dict[str, Level]]:
        """Every setting, if there are no ranges."""
        listed = [factor.choices or [] for factor in self.factors.values()]
        for levels in itertools.product(*listed):
            yield dict(zip(self.factors, levels, strict=True))

    def examples(self) -> Iterator[dict[str, Level]]:
        """Every level of every factor once, beside the first ones of the others."""
        first = {name: factor.examples[0] for name, factor in self.factors.items()}
        yield first
        for name, factor in self.factors.items():
            yield from ({**first, name: level} for level in factor.examples[1:])

    def labels(self) -> list[str]:
        """Of all settings in order; empty if a sampler chooses them."""
        return [] if self.sampler else [label_of(setting) for setting in self.combinations()]

    def configuration(self, setting: Setting, seed: int) -> dict[str, Any]:
        """The configuration of one run: the base, levels that are files, what all runs have, the other levels, the seed.

        Raises:
            BadInput: a file cannot be read.
        """
        files = [n for n, factor in self.factors.items() if factor.is_file(setting[n])]
        config: dict[str, Any] = {}
        for path in self.base:
            config = merged(config, read_settings(path))
        for name in files:
            config = merged(config, self.factors[name].settings(setting[name]))
        config = merged(config, self.common)
        others = {n: factor.settings(setting[n]) for n, factor in self.factors.items() if n not in files}
        for chosen in others.values():
            config = merged(config, chosen)
        for name, chosen in others.items():
            if lost := disagreements(chosen, config):
                raise BadInput(
                    f"factors.{name}", f"another factor overrules it: {'; '.join(lost)}.", "Put it behind that one."
                )
        config = merged(config, {"name": self.name, "seed_everything": seed})
        return merged(config, {"trainer": {"logger": self._logger(setting, seed)}}) if self.wandb else config

    def _logger(self, setting: Setting, seed: int) -> dict[str, Any]:
        assert self.wandb is not None
        title = ", ".join([*(f"{name} {level}" for name, level in setting.items()), f"seed {seed}"])
        init = {"project": self.wandb.project, "entity": self.wandb.entity, "offline": self.wandb.offline}
        init |= {"group": self.name, "name": title, "save_dir": "wandb"}
        return {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": init}

    @cached_property
    def common(self) -> dict[str, Any]:
        """Settings of every run: the study's, and what is laid over them.

        Raises:
            BadInput: a file cannot be read.
        """
        config: dict[str, Any] = dict(self.settings.content)
        for path in self.over:
            config = merged(config, read_settings(path))
        return config

    @property
    def total(self) -> float | None:
        """Units that each run may spend; None without a budget for all of them."""
        try:
            return float(found(self.common, "budget.total"))
        except (KeyError, TypeError):
            return None

    def identity(self) -> str:
        """Changes with whatever its results depend on; more trials of a sampler are the same study."""
        factors = {
            name: {**vars(factor), "levels": {level: factor.settings(level) for level in factor.levels or ()}}
            for name, factor in self.factors.items()
        }
        base = [read_settings(path) for path in self.base]
        content: dict[str, Any] = {"base": base, "factors": factors, "settings": self.common}
        content |= {"objectives": self.objectives, "seeds": self.seeds}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
