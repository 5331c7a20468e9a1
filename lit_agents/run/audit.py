"""Audit of one run folder: its files held against each other and against its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from lit_agents.algorithm.checkpoint import read_checkpoint
from lit_agents.environment.pool.pool import EnvPool
from lit_agents.errors import BadInput, printable
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.evaluation.audit.logprobs import WHAT, LogprobAudit
from lit_agents.evaluation.audit.records import Configured, RecordAudit
from lit_agents.evaluation.audit.replay import replay, sampled
from lit_agents.evaluation.episode_store import read_episodes
from lit_agents.run.cli import FitCLI
from lit_agents.run.folder import RunFolder

SHOWN = 10
"""Faults that are printed."""


PLAYS = ("model", "data", "sft", "elsewhere", "budget", "seed_everything")
"""Parts of a configuration that decide what is played, rewarded and trained."""


NEVER = "optimizer steps, weights of tokens in the loss, and whether the world and the reward are right"
"""What no audit of records can say."""


@dataclass
class Audit:
    """One run."""

    folder: Path
    findings: Findings
    logprobs: LogprobAudit

    @property
    def largest(self) -> float:
        """Difference of a log-probability, nats."""
        return self.logprobs.largest

    @property
    def unknown(self) -> int:
        """Sampled tokens whose weights were not kept."""
        return self.logprobs.unknown

    def report(self) -> str:
        """What was checked, the verdict, and what was not checked."""
        counts = [f"{count:>12,}  {what}" for what, count in self.findings.checked.items()]
        mean = self.logprobs.total / max(1, self.findings.checked[WHAT])
        counts.append(f"{'':>14}they differ by {mean:.2g} on average and {self.largest:.2g} at most (nats)")
        counts.append(f"{self.unknown:>12,}  sampled tokens whose weights were not kept (fit --keep_weights N)")
        faults = self.findings.faults
        shown = [printable(f"FAULT {fault}") for fault in faults[:SHOWN]]
        verdict = f"{len(faults)} faults" if faults else "no fault"
        omitted = [f"{what} ({count:,})" if count > 1 else what for what, count in self.findings.unchecked.items()]
        last = printable(f"not checked: {'; '.join([*omitted, NEVER])}")
        return "\n".join([*counts, *shown, f"{self.folder}: {verdict}", last])


def audit(folder: Path, tolerance: float | None = None, again: int | None = None, computes: bool = True) -> Audit:
    """The command as a function.

    Args:
        folder: of the run.
        tolerance: see `lit_agents.evaluation.audit.logprobs.TOLERANCES`.
        again: episodes to play again; 0 for all, None for none.
        computes: load the model, and compute log-probabilities again.

    Raises:
        BadInput: it is no run folder, or one without a record of what was trained.
    """
    for name in ("config.yaml", "episodes.jsonl", "trained.jsonl"):
        if not (folder / name).is_file():
            raise BadInput(str(folder), f"it holds no {name}.", "Name a folder `lit_agents.fit` has trained in.")
    cli = FitCLI(["--config", str(folder / "config.yaml")])
    findings, start = Findings(), cli.value("start_from")
    logprobs = LogprobAudit(folder, cli.model, cli.datamodule, Path(start) if start else None)
    try:
        check_configuration(folder, findings)
        records = RecordAudit(folder, _configured(cli, folder), findings)
        for stored in read_episodes(folder / "episodes.jsonl"):
            records.add(stored)
            logprobs.add(stored)
        with (folder / "trained.jsonl").open(encoding="utf-8", newline="\n") as file:
            records.add_trained(file)
        records.check()
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadInput):
            raise
        reason = f"a line of its records cannot be read ({type(error).__name__}: {error})."
        raise BadInput(str(folder), reason, "Let the run end, or go on with it, before it is audited.") from error
    _replay(cli, folder, again, findings)
    if computes:
        logprobs.check(str(cli.value("trainer")["precision"]), tolerance, findings)
    else:
        findings.unchecked["log-probabilities"] += 1
    return Audit(folder, findings, logprobs)


def _configured(cli: FitCLI, folder: Path) -> Configured:
    sft, budget, start = (cli.value(name) for name in ("sft", "budget", "start_from"))
    demonstrations = 0
    if sft and not cli.model.demonstrated:
        demonstrations = budget.demonstrations if budget else sft.demonstrations
    spent = None
    if start and Path(start).is_file():
        spent = read_checkpoint(Path(start), "start_from")[type(cli.datamodule).__qualname__]["ledger"]
    configurations = [
        {part: content.get(part) for part in PLAYS}
        for content in (yaml.safe_load((folder / name).read_text()) for name in RunFolder(folder).config_hashes())
    ]
    unchanged = all(other == configurations[0] for other in configurations)
    shown = (cli.value("elsewhere"), budget, spent, bool(start), unchanged)
    return Configured(cli.model, cli.datamodule, demonstrations, *shown)


def check_configuration(folder: Path, findings: Findings) -> None:
    """Is the configuration the one the results were made with? A run that went on with another one keeps them all."""
    path = folder / "summary.json"
    if not path.is_file():
        findings.unchecked["the hash of config.yaml: there is no summary.json"] += 1
        return
    noted = list(json.loads(path.read_text(encoding="utf-8"))["config"].values())
    now = RunFolder(folder).config_hashes()
    for (name, found), there in zip(now.items(), noted, strict=False):
        fault = f"{name}: its SHA-256 begins with {found[:16]}, and summary.json says {there[:16]}"
        findings.expect(found == there, "configurations", fault)
    if len(noted) > len(now):
        findings.faults.append(f"{folder}: {len(noted)} configurations in summary.json, and {len(now)} files")
    if len(noted) < len(now):
        findings.unchecked["what config.yaml was changed for after the last result"] += 1


def _replay(cli: FitCLI, folder: Path, again: int | None, findings: Findings) -> None:
    data, world = cli.datamodule, type(cli.datamodule.environment).__qualname__
    if again is None:
        findings.unchecked["what the world answered (--replay plays it again)"] += 1
        return
    if not data.environment.repeatable:
        findings.unchecked[f"what the world answered: {world} does not say that it is repeatable"] += 1
        return
    episodes = read_episodes(folder / "episodes.jsonl")
    chosen = sampled(episodes, again) if again else episodes
    together = min(8, data.limits.concurrent)
    step, reset = data.limits.step_timeout, data.limits.reset_timeout
    with EnvPool(data.environment, together, step_timeout=step, reset_timeout=reset) as pool:
        replay(chosen, pool, together, cli.model.policy.chat, findings)
    played = findings.checked["episodes played again"]
    if played < findings.checked["episodes"]:
        findings.unchecked["episodes that were not played again"] += findings.checked["episodes"] - played
