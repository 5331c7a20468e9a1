"""The pictures of a report: learning curves, the transfer heat map, the budget frontier."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_agents.evaluation.stats.bootstrap import success
from lit_agents.report.load import Material, Setting
from lit_agents.report.tables import front
from lit_agents.run.record import Record
from lit_agents.system.yaml_text import read_yaml

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#7A7A7A", "#8B4513")
"""To be told apart by the colour-blind (after Okabe and Ito), on light and on dark."""
INK = "#010203"
"""Stands for the page's own colour of text until a picture is put into one."""
Point = tuple[float, float]


@dataclass(frozen=True)
class Picture:
    """One picture; its name is that of its PNG file."""

    name: str
    title: str
    note: str
    draw: Callable[[Any], None]
    """Onto a matplotlib figure."""
    size: tuple[float, float]

    def svg(self) -> str:
        """For a page: transparent, text in the page's colour."""
        out = io.StringIO()
        style = {"svg.hashsalt": self.name, "svg.fonttype": "none", "text.color": INK, "axes.labelcolor": INK}
        style |= {"axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.facecolor": "none"}
        self._saved(out, style, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = out.getvalue().replace(INK, "currentColor")
        return text[text.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{self.title}" ', 1)

    def png(self, path: Path) -> None:
        """By itself, on white."""
        self._saved(path, {}, format="png", dpi=130)

    def _saved(self, where: Any, style: Mapping[str, Any], **options: Any) -> None:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        settings: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, **style}
        with matplotlib.rc_context(settings):
            figure = Figure(figsize=self.size, layout="constrained")
            FigureCanvasAgg(figure)
            self.draw(figure)
            figure.savefig(where, **options)


def pictures(material: Material) -> list[Picture]:
    """All that there is something for."""
    found = []
    if any(curve(record, "rollout/success") for setting in material.settings for record in setting.records):
        note = "Mean of the seeds; the band is from the lowest to the highest. Iterations play new tasks, so rollouts are rough."
        found.append(Picture("curves", "Learning curves", note, lambda figure: _curves(figure, material), (9, 3.6)))
    if len(material.places) > 1:
        note = "Success after the last stage, mean over seeds and tasks; columns are where it was measured."
        height = 1.2 + 0.35 * len(material.settings)
        found.append(Picture("transfer", "Transfer", note, lambda figure: _heat(figure, material), (7, height)))
    if len(material.settings) > 1:
        note = "Each setting at the end of its runs. The line joins those that no other one beats in both at once (Pareto front)."
        found.append(Picture("frontier", "Budget frontier", note, lambda figure: _frontier(figure, material), (9, 3.8)))
    return found


def curve(record: Record, column: str) -> list[Point]:
    """Success over what had been spent when it was measured: units of the budget, or episodes of RL without one."""
    path = record.folder / "metrics.csv"
    if not path.is_file():
        return []
    budget = (read_yaml((record.folder / "config.yaml").read_text(encoding="utf-8")) or {}).get("budget")
    prices = budget["prices"] if budget and budget["prices"]["episode"] else None  # games may be what is paid for
    price = prices["episode"] if prices else 1.0
    spent = prices["demonstration"] * record.ledger["demonstrations"] if prices else 0.0
    points = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["stage"] == "rl":
                spent += price * float(row.get("rollout/n") or 0)
                points += [(spent, float(row[column]))] if row.get(column) else []
    return points


def band(curves: Sequence[Sequence[Point]]) -> list[tuple[float, float, float, float]]:
    """(x, mean, lowest, highest) of several curves, as far as all of them go; points are paired by their number."""
    found = []
    for points in zip(*curves, strict=False):
        ys = [y for _, y in points]
        found.append((sum(x for x, _ in points) / len(points), sum(ys) / len(ys), min(ys), max(ys)))
    return found


def _curves(figure: Any, material: Material) -> None:
    panels = figure.subplots(1, 2, sharey=True)
    columns = (("rollout/success", "training rollouts"), ("validation/success", "validation"))
    for axes, (column, title) in zip(panels, columns, strict=True):
        for i, setting in enumerate(material.settings):
            points = band([curve(record, column) for record in setting.records])
            if points:
                x, mean, low, high = zip(*points, strict=True)
                colour, style = COLOURS[i % len(COLOURS)], "o-" if column.startswith("validation") else "-"
                axes.plot(x, mean, style, color=colour, markersize=3, linewidth=1.2, label=_plain(setting.label))
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel="units spent, or episodes of RL without a budget", ylim=(-0.02, 1.02))
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("success")
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8)


def _heat(figure: Any, material: Material) -> None:
    axes = figure.subplots()
    places, settings = material.places, material.settings
    for row, setting in enumerate(settings):
        for column, place in enumerate(places):
            if setting.has(place, setting.last):
                rate = success(setting.tallies(place, setting.last))[0]
                axes.fill_between(
                    [column, column + 1], row, row + 1, color="#0072B2", alpha=0.08 + 0.8 * rate, linewidth=0
                )
                axes.text(column + 0.5, row + 0.5, f"{rate:.3f}", ha="center", va="center")
    axes.set(xlim=(0, len(places)), ylim=(len(settings), 0))
    axes.set_xticks([i + 0.5 for i in range(len(places))], [_plain(place) for place in places])
    axes.set_yticks([i + 0.5 for i in range(len(settings))], [_plain(s.label) for s in settings])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _frontier(figure: Any, material: Material) -> None:
    first = material.objectives[0]
    panels: list[tuple[str, Callable[[Setting], float | None], float]] = [("seconds of training", _seconds, -1.0)]
    if len(material.objectives) > 1:
        second = material.objectives[1]
        panels.append((f"success: {second}", lambda setting: _rate(setting, second), 1.0))
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (label, along, sign) in zip(every, panels, strict=True):
        named = [(s.label, along(s), _rate(s, first)) for s in material.settings]
        points = [(name, x, y) for name, x, y in named if x is not None and y is not None]
        best = front([(sign * x, y) for _, x, y in points])
        axes.plot([points[i][1] for i in best], [points[i][2] for i in best], "--", color=INK, alpha=0.5, linewidth=1)
        for i, (name, x, y) in enumerate(points):
            axes.plot(x, y, "o", color=COLOURS[i % len(COLOURS)])
            axes.annotate(_plain(name), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axes.margins(x=0.2, y=0.15)
        axes.set(xlabel=label, ylabel=f"success: {first}")
        axes.grid(alpha=0.25)


def _rate(setting: Setting, place: str) -> float | None:
    return success(setting.tallies(place, setting.last))[0] if setting.has(place, setting.last) else None


def _seconds(setting: Setting) -> float:
    spent: list[float] = [
        sum(record.ledger["seconds"].get(stage, 0.0) for stage in ("sft", "rl")) for record in setting.records
    ]
    return sum(spent) / len(spent)


def _plain(text: str) -> str:
    """Dollars would begin a formula."""
    return text.replace("$", r"\$")
