"""What a study varies: one setting over some values, whole sets of settings under names, or a range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml

from lit_agents.errors import BadInput
from lit_agents.study.config_merge import Settings, placed
from lit_agents.system.yaml_text import read_yaml

Level = str | int | float | bool | None


@dataclass(frozen=True)
class Factor:
    """One of three kinds: ``flag`` and ``values``, ``levels``, or ``flag`` with ``low`` and ``high``."""

    flag: str | None = None
    """The setting, e.g. ``budget.sft_share``."""
    values: list[Level] | None = None
    """What it is set to."""
    levels: dict[str, Settings | str] | None = None
    """By name: settings nested as in a YAML file, or the path of one."""
    low: float | None = None
    """The least value of a range."""
    high: float | None = None
    """The largest."""
    log: bool = False
    """Whether a range is searched by orders of magnitude."""
    integer: bool = False
    """Whether a range has whole numbers alone."""

    def __post_init__(self) -> None:
        """Refuse what is none of the three kinds."""
        is_range = self.low is not None and self.high is not None
        upwards = self.low is None or self.high is None or self.low < self.high
        kinds = [bool(self.values), bool(self.levels), is_range]
        if sum(kinds) != 1 or (self.low is None) != (self.high is None) or bool(self.flag) == bool(self.levels):
            reason = "it is neither a flag with values, nor levels, nor a flag with low and high."
            raise BadInput(f"factors ({self.flag or 'without flag'})", reason, "See sweeps/ for examples.")
        if not upwards:
            raise BadInput(f"factors ({self.flag})", f"low={self.low} is not below high={self.high}.", "Swap them.")
        if self.log and self.low is not None and self.low <= 0:
            raise BadInput(f"factors ({self.flag})", f"low={self.low} has no order of magnitude.", "Raise it above 0.")
        if self.integer and any(end is not None and end != int(end) for end in (self.low, self.high)):
            raise BadInput(f"factors ({self.flag})", "an end of its range is no whole number.", "Make it one.")
        if self.flag in ("seed_everything", "name"):
            raise BadInput(f"factors ({self.flag})", "the study sets it itself.", "Use seeds, and the study's name.")
        if (self.log or self.integer) and not is_range:
            reason = "log and integer say how a range is searched, and it has none."
            raise BadInput(f"factors ({self.flag or 'levels'})", reason, "Leave them out.")

    @property
    def choices(self) -> list[Level] | None:
        """All of them in order; None for a range."""
        return list(self.levels) if self.levels else self.values

    @property
    def examples(self) -> list[Level]:
        """All of them, or the two ends of a range."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None and self.high is not None
        return [int(self.low), int(self.high)] if self.integer else [self.low, self.high]

    def suggested(self, trial: optuna.Trial, name: str) -> Level:
        """What the sampler wants for this trial."""
        if self.choices is not None:
            return trial.suggest_categorical(name, self.choices)
        assert self.low is not None and self.high is not None
        if self.integer:
            return int(trial.suggest_int(name, int(self.low), int(self.high), log=self.log))
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))

    def settings(self, level: Level) -> dict[str, Any]:
        """What a level sets.

        Raises:
            BadInput: a file that is named is not there, or holds no settings.
        """
        if not self.levels:
            assert self.flag is not None
            return placed(self.flag, level)
        chosen = self.levels[str(level)]
        return read_settings(chosen) if isinstance(chosen, str) else chosen.content

    def is_file(self, level: Level) -> bool:
        """Whether a level is a whole file, over which the study's own settings are laid."""
        return bool(self.levels) and isinstance(self.levels[str(level)], str)  # type: ignore[index]


def label_of(setting: Mapping[str, Level]) -> str:
    """A level of every factor, for a person."""
    return ", ".join(f"{name} {level_text(level)}" for name, level in setting.items())


def level_text(level: Level) -> str:
    """One of them, for a person."""
    return f"{level:.6g}" if isinstance(level, float) else str(level)


def read_settings(path: str) -> dict[str, Any]:
    """A YAML file.

    Raises:
        BadInput: it is not there, or holds no settings.
    """
    try:
        content = read_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = f"it cannot be read ({' '.join(str(error).split())[:300]})."
        raise BadInput(path, reason, "Name a YAML file; paths begin where the command is called.") from error
    if not isinstance(content, Mapping):
        raise BadInput(path, "it holds no settings.", "Name a configuration of lit_agents.fit.")
    return dict(content)
