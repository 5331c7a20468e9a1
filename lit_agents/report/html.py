"""A report as files: one page that needs nothing else, and its tables and pictures by themselves."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

import lit_agents
from lit_agents.report.figures import Picture, pictures
from lit_agents.report.load import Material
from lit_agents.report.tables import Cell, Estimate, Table, tables
from lit_agents.report.transcripts import Chat, chats
from lit_agents.system.files import made_folder, write_whole

PAGE, DATA = "report.html", "report.json"
REPORT = "report"
"""Where it is in a study's folder."""


@dataclass(frozen=True)
class Part:
    """What the page shows of one study."""

    title: str
    objectives: Sequence[str]
    gaps: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    chats: Sequence[Chat]

    @staticmethod
    def of(material: Material) -> Part:
        """Compute it."""
        return Part(
            material.title,
            material.objectives,
            material.gaps,
            tables(material),
            pictures(material),
            chats(material),
        )


def write(materials: Sequence[Material], folder: Path) -> list[Part]:
    """``report.html``, ``report.json``, and a CSV file per table and a PNG file per picture; what was there is replaced."""
    made_folder("--output", folder)
    parts = [Part.of(material) for material in _with_titles_of_their_own(materials)]
    for name in _written(folder):
        (folder / name).unlink(missing_ok=True)
    write_whole(folder / PAGE, page(parts))
    files: list[str] = []
    for part in parts:
        before = f"{part.title}_" if len(parts) > 1 else ""
        for table in part.tables:
            files.append(f"{before}{table.name}.csv")
            write_whole(folder / files[-1], _as_csv(table))
        for picture in part.pictures:
            files.append(f"{before}{picture.name}.png")
            picture.png(folder / files[-1])
    shown = [{"title": p.title, "gaps": list(p.gaps), "tables": {t.name: _as_json(t) for t in p.tables}} for p in parts]
    write_whole(folder / DATA, json.dumps({"files": files, "parts": shown}, indent=1) + "\n")
    return parts


def _with_titles_of_their_own(materials: Sequence[Material]) -> list[Material]:
    """Two studies of one name are numbered; titles are parts of file names."""
    titles = [re.sub(r"[^\w.-]+", "-", material.title) for material in materials]
    numbers = [titles[: i + 1].count(title) for i, title in enumerate(titles)]
    named = [title if titles.count(title) == 1 else f"{title}-{n}" for title, n in zip(titles, numbers, strict=True)]
    return [replace(material, title=title) for material, title in zip(materials, named, strict=True)]


def _written(folder: Path) -> list[str]:
    """Tables and pictures of a report that was there before."""
    try:
        return [
            str(name) for name in json.loads((folder / DATA).read_text(encoding="utf-8"))["files"] if "/" not in name
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def page(parts: Sequence[Part]) -> str:
    """The HTML; whatever the runs said is escaped."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    environment.filters["shown"] = _shown
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("page.html").render(materials=parts, made=made, version=lit_agents.__version__)


def _shown(cell: Cell) -> Markup:
    if cell is None:
        return Markup("<td></td>")
    if isinstance(cell, str):
        return Markup('<td class="text">{}</td>').format(cell)
    if isinstance(cell, Estimate):
        level, _, between = str(cell).partition(" ")
        return Markup("<td><b>{}</b> <small>{}</small></td>").format(level, between)
    if isinstance(cell, int):
        return Markup("<td>{}</td>").format(f"{cell:,}")
    return Markup("<td>{}</td>").format(f"{cell:,.3g}" if abs(cell) < 1 else f"{cell:,.1f}".removesuffix(".0"))


def _as_json(table: Table) -> dict[str, Any]:
    rows = [[asdict(cell) if isinstance(cell, Estimate) else cell for cell in row] for row in table.rows]
    return {"title": table.title, "note": table.note, "columns": table.columns, "rows": rows}


def _as_csv(table: Table) -> str:
    """An estimate becomes three columns."""
    wide = [any(isinstance(row[i], Estimate) for row in table.rows) for i in range(len(table.columns))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = zip(table.columns, wide, strict=True)
    writer.writerow(
        [n for name, three in names for n in ((name, f"{name}, low", f"{name}, high") if three else (name,))]
    )
    for row in table.rows:
        cells: list[Cell] = []
        for cell, three in zip(row, wide, strict=True):
            estimate = (cell.mean, cell.low, cell.high) if isinstance(cell, Estimate) else (None, None, None)
            cells += estimate if three else [cell]
        writer.writerow(cells)
    return out.getvalue()
