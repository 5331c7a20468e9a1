"""Put runs together: ``python -m lit_agents.report STUDY_OR_RUN [...]``.

Studies of `lit_agents.tune`, each by itself, and runs of `lit_agents.fit`, those that differ in their seed alone as one setting.
Nothing is played; everything is in the folders.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as Shown

from lit_agents.report.html import PAGE, REPORT, Part, write
from lit_agents.report.load import read
from lit_agents.report.tables import Cell, Estimate, Table
from lit_agents.study.study_json import TRIALS
from lit_agents.system.command import run_command

REPORTS = Path("reports")


def report(paths: Sequence[Path], folder: Path | None = None) -> Path:
    """Write it and show its first tables; the page's path.

    Args:
        folder: by default ``report`` in the folder of a study, or ``reports/`` and `name_for` the folders.

    Raises:
        BadInput: a folder is neither study nor run, or there is no finished run in any.
    """
    materials = read(paths)
    alone = paths[0] if len(paths) == 1 and (paths[0] / TRIALS).is_file() else None
    target = folder or (alone / REPORT if alone else REPORTS / name_for(paths))
    for part in write(materials, target):
        _show(part)
    Console().print(f"report: {target / PAGE}", highlight=False, markup=False, soft_wrap=True)
    return target / PAGE


def name_for(paths: Sequence[Path]) -> str:
    """What a report is called: the folder's name, what runs that are numbered have in common, or the folder they lie in."""
    whole = [path.resolve() for path in paths]
    names = {re.sub(r"-\d+$", "", path.name) for path in whole}
    if len(names) > 1 or (len(whole) > 1 and all(name.isdigit() for name in names)):
        return Path(os.path.commonpath(whole)).name or whole[0].name
    only = whole[0].name if len(whole) == 1 else names.pop()
    return f"{whole[0].parent.name}-{only}" if only.isdigit() else only


def _show(part: Part) -> None:
    console = Console()
    for gap in part.gaps:
        console.print(f"{part.title}: {gap}", highlight=False, markup=False, soft_wrap=True)
    for table in part.tables:
        if table.name in {f"{kind}_{place}" for kind in ("success", "gain") for place in part.objectives}:
            console.print(f"\n{part.title}. {table.title}", highlight=False, markup=False, soft_wrap=True)
            console.print(_for_terminal(table))


def _for_terminal(table: Table) -> Shown:
    """As narrow as it can be; the page has all of it."""
    shown = Shown()
    kept = [i for i, column in enumerate(table.columns) if column not in ("last stage, by seed", "tasks")]
    for i in kept:
        shown.add_column(table.columns[i], justify="left" if i == 0 else "right")
    for row in table.rows:
        shown.add_row(*(_text(row[i]) for i in kept))
    return shown


def _text(cell: Cell) -> str:
    if isinstance(cell, Estimate):
        return str(cell).replace(" (", "\n(")
    return "" if cell is None else f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lit_agents.report", allow_abbrev=False, description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="STUDY_OR_RUN", help="folders")
    parser.add_argument("--output", type=Path, help="folder of the report")
    given = parser.parse_args(args)
    return run_command(lambda: report(given.paths, given.output))


if __name__ == "__main__":
    sys.exit(main())
