"""What a finished run says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_agents.errors import BadInput
from lit_agents.evaluation.result import Result

TEST = "test"
"""Where every run is measured; other places have names of their own."""
START = "start"
"""What stands in the place of the base in a run that began with another one's weights."""
LEAVE_OUT = "Leave it out; a run of a study is made again by lit_agents.tune once its folder is deleted."


@dataclass(frozen=True)
class Record:
    """One run, the supervised stage it shares with others included."""

    folder: Path
    seed: int
    stages: Mapping[str, Mapping[str, Result]]
    """By stage (``base`` or ``start``, ``sft``, ``rl``), then by place."""
    ledger: Mapping[str, Any]
    """`lit_agents.rollout.datamodule.RolloutDataModule.account`."""
    start: Path | None = None
    """The run whose supervised stage counts as its own."""
    began_with: str | None = None
    """The checkpoint it began with, or the run whose stage is its own; None if it began with the untouched model."""
    changed: tuple[str, ...] = ()
    """Where it went on under other conditions, a sentence each; see `lit_agents.run.resuming`."""

    @property
    def last(self) -> str:
        """The stage that counts."""
        return list(self.stages)[-1]

    def result(self, place: str, stage: str | None = None) -> Result:
        """At the end of the run, or after another stage of it.

        Raises:
            BadInput: it was not measured there.
        """
        places = self.stages[stage or self.last]
        if place not in places:
            reason = f"it was measured in {', '.join(places)}."
            raise BadInput(f"objectives ({place})", reason, "Name one of them, or add a place to settings.elsewhere.")
        return places[place]

    @staticmethod
    def of(folder: Path, start: Path | None) -> Record:
        """Read its folder.

        Args:
            start: the run it began with, if that one's stages count as its own.

        Raises:
            BadInput: a file of it is not whole.
        """
        if not (folder / "summary.json").is_file():
            raise BadInput(str(folder), "it has not been tested yet.", "Let the run end.")
        summary, stages, ledger = _read(folder / "summary.json"), _stages(folder), _read(folder / "ledger.json")
        if "seed" not in summary or "base" not in stages:
            reason = "it names no seed, or has not been tested yet."
            raise BadInput(str(folder / "summary.json"), reason, "Let the run end.")
        began_with = summary.get("start_from")
        trained = {name: found for name, found in stages.items() if name != "base"}
        if start is None:
            # what a run calls its base is what it began with
            stages = {START if began_with else "base": stages["base"], **trained}
        else:
            before, of_start = _stages(start), _read(start / "summary.json")
            if not {"base", "sft"} <= set(before):
                raise BadInput(str(start), "it has not been tested after sft.", "Let the run end.")
            # what it began with it has measured itself, or taken over: a start of another seed is other episodes
            first = START if of_start.get("start_from") else "base"
            stages = {first: before["base"], "sft": stages["base"], **trained}
            # its tests were not over when it left the checkpoint that the other one's ledger goes on from
            ledger["seconds"] = _read(start / "ledger.json")["seconds"] | ledger["seconds"]
        changes = [*(_read(start / "summary.json").get("changed", []) if start else []), *summary.get("changed", [])]
        changed = tuple(str(change["sentence"]) for change in changes)
        return Record(folder, int(summary["seed"]), stages, ledger, start, str(start) if start else began_with, changed)


def _stages(folder: Path) -> dict[str, dict[str, Result]]:
    summary = _read(folder / "summary.json")
    try:
        elsewhere = summary.get("elsewhere", {})
        stages = {
            stage: {place: Result.from_json(r) for place, r in ({TEST: found} | elsewhere.get(stage, {})).items()}
            for stage, found in summary["success"].items()
        }
    except (KeyError, TypeError) as error:
        reason = f"it is no summary of a run ({type(error).__name__}: {error})."
        raise BadInput(str(folder / "summary.json"), reason, LEAVE_OUT) from error
    for stage, places in stages.items():
        for place, result in places.items():
            if not result.n:
                reason = f"the environment broke every episode of {place} after {stage}."
                raise BadInput(str(folder / "summary.json"), reason, LEAVE_OUT)
    return stages


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadInput(str(path), f"it cannot be read ({error}).", LEAVE_OUT) from error
