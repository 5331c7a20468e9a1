"""A study's trials for the terminal."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from lit_agents.study.config import Study
from lit_agents.study.factors import level_text
from lit_agents.study.study_json import latest

WIDE = 200  # columns of a log file, where rich would cut names down to fit 80


def print_study(trials: optuna.Study, study: Study) -> None:
    """A line per setting, with the mean over seeds and its interval; those given up or failed say so."""
    table = Table()
    for name in study.factors:
        table.add_column(name)
    for place in study.objectives:
        table.add_column(place, justify="right")
        table.add_column("95 %", justify="right")
    for trial in latest(trials):
        levels = trial.user_attrs.get("setting", {})
        setting = [level_text(levels[name]) if name in levels else "" for name in study.factors]
        if trial.state != TrialState.COMPLETE:
            table.add_row(*setting, trial.state.name.lower())
            continue
        cells: list[str] = []
        for mean, low, high in trial.user_attrs["intervals"].values():
            cells += [f"{mean:.3f}", f"{low:.3f} - {high:.3f}"]
        table.add_row(*setting, *cells)
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    seeds = ", ".join(map(str, study.seeds))
    console.print(f"{study.name}: success, mean of seeds {seeds}; intervals over seeds and tasks", highlight=False)
    console.print(table)
