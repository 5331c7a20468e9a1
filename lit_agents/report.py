"""Put runs together: ``python -m lit_agents.report RUN [RUN ...]``.

Runs of one configuration with different seeds: the success of each stage over all of them, and what each stage gained over
the one before, game by game. Nothing is played; everything is in the run folders.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lit_agents.errors import BadInput
from lit_agents.evaluation.intervals import mean_interval
from lit_agents.evaluation.result import Conditions, differences
from lit_agents.evaluation.samples import rate_interval

TEST = "test/"


@dataclass(frozen=True)
class Scores:
    """What one run's stages did on its test tasks."""

    run: str
    conditions: Mapping[str, Any]
    """See `lit_agents.evaluation.result.Conditions`."""
    won: Mapping[str, Mapping[str, bool]]
    """By stage, then by task; episodes the environment broke are not in it."""

    @staticmethod
    def read(folder: Path) -> Scores:
        """A run folder.

        Raises:
            BadInput: it holds no finished test.
        """
        won: dict[str, dict[str, bool]] = {}
        try:
            success = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["success"]
            with (folder / "episodes.jsonl").open(encoding="utf-8") as file:
                for episode in map(json.loads, file):
                    if episode["phase"].startswith(TEST) and episode["rewards"] is not None:
                        stage = episode["phase"].removeprefix(TEST)
                        won.setdefault(stage, {})[episode["task"]["id"]] = episode["stop"] == "won"
        except (OSError, ValueError, KeyError) as error:
            reason = f"it cannot be read as a run folder ({type(error).__name__}: {error})."
            raise BadInput(str(folder), reason, "Name folders that `lit_agents.fit` has written.") from error
        if not success:
            raise BadInput(str(folder), "no stage of it has been tested yet.", "Let the run end, or leave it out.")
        return Scores(str(folder), next(iter(success.values()))["conditions"], {s: won[s] for s in success})


def refuse_different(runs: Sequence[Scores]) -> None:
    """Refuse to put together what was not measured in the same way; seeds may differ.

    Raises:
        BadInput: by the name of the run, and of what differs.
    """
    first = runs[0]
    for other in runs[1:]:
        if found := differences(other.conditions, first.conditions):
            raise BadInput(other.run, f"its {'; its '.join(found)} as in {first.run}.", "Report them apart.")
        if other.won.keys() != first.won.keys():
            reason = f"it has the stages {', '.join(other.won)}; {first.run} has {', '.join(first.won)}."
            raise BadInput(other.run, reason, "Let all runs end, or report them apart.")


def gain(runs: Sequence[Scores], before: str, after: str) -> tuple[list[float], float, float, float]:
    """The gain in success of one stage over another: of each run, and their mean with a 95 % interval over tasks."""
    per_run = [
        {task: float(run.won[after][task]) - won for task, won in run.won[before].items() if task in run.won[after]}
        for run in runs
    ]
    tasks = [task for task in per_run[0] if all(task in gains for gains in per_run)]
    mean, low, high = mean_interval([sum(gains[task] for gains in per_run) / len(runs) for task in tasks])
    return [sum(gains.values()) / len(gains) for gains in per_run], mean, low, high


def pooled(runs: Sequence[Scores], stage: str) -> dict[str, tuple[int, int]]:
    """Episodes won and played of each task, over all runs."""
    tasks = dict.fromkeys(task for run in runs for task in run.won[stage])
    outcomes = {task: [run.won[stage][task] for run in runs if task in run.won[stage]] for task in tasks}
    return {task: (sum(each), len(each)) for task, each in outcomes.items()}


def print_report(runs: Sequence[Scores]) -> None:
    """Two tables."""
    levels, gains = Table(), Table()
    for column in ("policy", "success", "n", "95 % interval", "of each run"):
        levels.add_column(column, justify="left" if column == "policy" else "right")
    for column in ("gain", "mean", "95 % interval", "of each run"):
        gains.add_column(column, justify="left" if column == "gain" else "right")
    for stage in runs[0].won:
        rates = [sum(run.won[stage].values()) / len(run.won[stage]) for run in runs]
        won, n = (sum(f(run.won[stage].values()) for run in runs) for f in (sum, len))
        low, high = rate_interval(pooled(runs, stage))  # the runs played the same tasks
        each = " ".join(f"{rate:.3f}" for rate in rates)
        levels.add_row(stage, f"{won / n:.3f}", str(n), f"{low:.3f} - {high:.3f}", each)
    for before, after in pairwise(runs[0].won):
        each_run, mean, low, high = gain(runs, before, after)
        each = " ".join(f"{value:+.3f}" for value in each_run)
        gains.add_row(f"{after} - {before}", f"{mean:+.3f}", f"{low:+.3f} - {high:+.3f}", each)
    console = Console()
    seeds = ", ".join(str(run.conditions["seed"]) for run in runs)
    sentence = Conditions(**runs[0].conditions).sentence.rpartition(", seed ")[0]
    console.print(f"{sentence}, seeds {seeds}", highlight=False, markup=False, soft_wrap=True)
    console.print(levels)
    console.print(gains)
    console.print("Gains are paired by task; their interval is over tasks, for these runs.", highlight=False)


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lit_agents.report", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    try:
        runs = [Scores.read(folder) for folder in parser.parse_args(args).runs]
        refuse_different(runs)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
