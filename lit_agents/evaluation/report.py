"""What a run shows at its end: a small table and a learning curve."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lit_agents.evaluation.result import Result


def print_table(title: str, results: Mapping[str, Result]) -> None:
    """One line per result, with n and interval."""
    table = Table(title=title, title_justify="left")
    for column in ("policy", "success", "n", "95 % interval", "mean turns"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, result in results.items():
        table.add_row(name, *result.row())
    Console().print(table)


def draw_curve(metrics_csv: Path, picture: Path, results: Mapping[str, Result]) -> None:
    """Success over RL iterations: training rollouts, validation, and the test results as lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with metrics_csv.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("stage") == "rl"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for column, label, style in (
        ("rollout/success", "training rollouts", "-"),
        ("validation/success", "validation", "o--"),
    ):
        points = [(int(row["iteration"]), float(row[column])) for row in rows if row.get(column)]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    for i, (name, result) in enumerate(results.items()):
        axes.axhline(result.rate, color=f"C{i + 2}", linestyle=":", label=f"test, {name}: {result.rate:.2f}")
    axes.set(xlabel="RL iteration", ylabel="success", ylim=(-0.02, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(picture, dpi=120)
