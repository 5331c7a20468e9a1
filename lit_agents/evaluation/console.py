"""What a run shows at its end: a small table and a learning curve."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_agents.evaluation.result import Result

MOST_VALUES = 6
"""A label with more values than these gets no table of its own."""


def print_table(title: str, results: Mapping[str, Result]) -> None:
    """One line per result, with n and interval."""
    table = Table()
    for column in ("policy", "success", "n", "95 % interval", "mean turns"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, result in results.items():
        table.add_row(name, *result.row())
    console = Console()
    console.print(
        f"\n{title}", highlight=False, markup=False, soft_wrap=True
    )  # a title of the table would be as narrow
    console.print(table)
    for label, values in _labels(results).items():
        console.print(_by_label(label, values, results))
    for name, result in results.items():
        if result.samples > 1:
            rates = [f"@{k} {rate:.3f} ({low:.3f} - {high:.3f})" for k, (rate, low, high) in result.pass_at().items()]
            tasks = f"{name}, {len(result.by_task)} tasks: pass{', '.join(rates)}"
            console.print(tasks, highlight=False, markup=False, soft_wrap=True)
    if failures := {name: result.failures for name, result in results.items() if result.failures}:
        counts = ", ".join(f"{name} {count}" for name, count in failures.items())
        console.print(f"episodes the environment broke, not in n: {counts}", highlight=False, soft_wrap=True)


def _labels(results: Mapping[str, Result]) -> dict[str, list[str]]:
    """Labels by which the tasks differ, each with its values."""
    found: dict[str, dict[str, None]] = {}
    for result in results.values():
        for name in result.numbers:
            if name.startswith("n/"):
                label, _, value = name.removeprefix("n/").partition("=")
                found.setdefault(label, {})[value] = None
    return {label: sorted(values) for label, values in found.items() if 1 < len(values) <= MOST_VALUES}


def _by_label(label: str, values: Sequence[str], results: Mapping[str, Result]) -> Table:
    """Success with its interval and n, a line per value of a label."""
    table = Table(label, *results)
    for value in values:
        cells = []
        for numbers in (result.numbers for result in results.values()):
            key = f"{label}={value}"
            if f"n/{key}" not in numbers:
                cells.append("")
                continue
            low, high, n = numbers[f"success_low/{key}"], numbers[f"success_high/{key}"], int(numbers[f"n/{key}"])
            cells.append(f"{numbers[f'success/{key}']:.3f} ({low:.3f} - {high:.3f}) of {n}")
        table.add_row(value, *cells)
    return table


def draw_curve(metrics_csv: Path, picture: Path, results: Mapping[str, Result]) -> bool:
    """Success over iterations: rollouts, validation, and the test results as lines.

    A run without RL shows the loss of its demonstrations instead of rollouts; the answer is whether there was anything.
    """
    rows = _rows(metrics_csv)
    if not rows:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if rows[0]["stage"] == "rl":
        _draw(axes, rows, "rollout/success", "-", label="training rollouts")
    else:
        right = axes.twinx()
        _draw(right, rows, "train/nll", "k-", label="loss")
        right.set(ylabel="negative log-likelihood of the demonstrations (black)")
    _draw(axes, rows, "validation/success", "o--", label="validation")
    for before, row in pairwise(rows):
        if row.get("changed") != before.get("changed"):
            axes.axvline(int(row["iteration"]) - 0.5, color="k", linestyle="--", label="resumed under other conditions")
    for i, (name, result) in enumerate(results.items()):
        axes.axhline(result.rate, color=f"C{i + 2}", linestyle=":", label=f"test, {name}: {result.rate:.2f}")
    axes.set(xlabel="iteration" if rows[0]["stage"] == "rl" else "epoch", ylabel="success", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    figure.savefig(picture, dpi=120)
    return True


def _rows(metrics_csv: Path) -> list[dict[str, str]]:
    """The iterations of RL, or of SFT if there were none."""
    if not metrics_csv.exists():
        return []
    with metrics_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["stage"] == "rl"] or rows


def _draw(axes: Any, rows: list[dict[str, str]], column: str, style: str, label: str) -> None:
    points = [(int(row["iteration"]), float(row[column])) for row in rows if row.get(column)]
    if points:
        axes.plot(*zip(*points, strict=True), style, label=label)
