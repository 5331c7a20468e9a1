"""Audit a run's tokens: ``python -m lit_agents.audit RUN [--tolerance NATS]``.

Reads the run's stored episodes again and fails if a trained token is not the sampled one, if the tokens of a turn are not a
prefix of the next, if the loss covers anything but the agent's own sampled tokens, if an episode that can teach something is
not trained on, or if log-probabilities computed again with the weights that sampled them differ by more than the tolerance.
Weights are those of the checkpoints there are: `fit` keeps more of them with ``--keep_weights``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lit_agents.algorithm.checkpoint import read_checkpoint
from lit_agents.cli import run_command
from lit_agents.errors import BadInput, printable
from lit_agents.evaluation.stored import StoredEpisode, read_episodes
from lit_agents.evaluation.token_audit import Findings, Plan, TrainedAudit, check_episode, logprob_gap
from lit_agents.fit import FitCLI
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.sampling import Sampling

TOLERANCES = {"float64": 1e-4, "float32": 1e-3, "bfloat16": 1.0}
"""Largest difference of one token's log-probability, nats, by the type computed in: the engine reads a conversation turn by
turn, the trainer in one go, so they round differently; a larger one is computed once more in float32. The mean over all tokens of
one set of weights may be a tenth of it."""
SHOWN = 10
"""Faults that are printed."""
Sampler = tuple[str, int]
"""A stage and the number of its optimizer steps; what the run began with is ``("base", 0)``."""


@dataclass
class Audit:
    """One run."""

    cli: FitCLI
    folder: Path
    findings: Findings = field(default_factory=Findings)
    largest: float = 0.0
    """Difference of a log-probability."""
    total: float = 0.0
    unknown: int = 0
    """Sampled tokens whose weights were not kept."""

    def records(self) -> None:
        """What can be told from the two records alone."""
        supervised = self.cli.model.demonstrated
        passes = self.cli.datamodule.schedule.passes
        plans = {"sft": Plan(passes if supervised else 1), "rl": Plan(passes, **self.leaves_out())}
        trained = TrainedAudit(plans)
        chat = self.cli.model.policy.chat
        for stored in read_episodes(self.folder / "episodes.jsonl"):
            check_episode(stored, chat, self.findings)
            trained.add_sampled(stored)
        with (self.folder / "trained.jsonl").open(encoding="utf-8") as file:
            for line in file:
                trained.add_trained(json.loads(line))
        trained.check(self.findings)

    def leaves_out(self) -> dict[str, Any]:
        """Which episodes RL need not train on; see `Plan`."""
        module, schedule = self.cli.model, self.cli.datamodule.schedule
        skips = module.skips_zero_advantage and not module.kl.loss
        skips = skips or schedule.resample_rounds > 0
        return {"group_size": schedule.group_size, "compares": module.compares_group, "skips": skips}

    def logprobs(self, tolerance: float | None) -> None:
        """Compute log-probabilities again with every set of weights there is."""
        policy, weights = self.cli.model.policy, self.weights()
        policy.load()
        policy.to("cuda" if torch.cuda.is_available() else "cpu")
        policy.compute_in(str(self.cli.value("trainer")["precision"]))
        tolerance = TOLERANCES[self.computed_in] if tolerance is None else tolerance
        for sampler, content in weights.items():
            chosen = [s for s in self.sampled() if self.sampler(s) == sampler]
            if content is not None and chosen:
                self.cli.model.restore(read_checkpoint(content))
            for temperature in sorted({self.sampling(s).temperature for s in chosen}):
                equal = [s for s in chosen if self.sampling(s).temperature == temperature]
                self._compare(policy, equal, temperature, tolerance)
        lost = (s for s in self.sampled() if self.sampler(s) not in weights)
        self.unknown = sum(len(turn.action_ids) for s in lost for turn in s.episode.turns)

    def _compare(
        self, policy: CausalLMPolicy, chosen: Sequence[StoredEpisode], temperature: float, tolerance: float
    ) -> None:
        tokens, total = 0, 0.0
        for stored, gap in logprob_gap(policy, chosen, temperature, tolerance):
            tokens, total, self.largest = (
                tokens + gap.tokens,
                total + gap.mean * gap.tokens,
                max(self.largest, gap.largest),
            )
            if not gap.largest <= tolerance:
                where = f"{stored.phase}, iteration {stored.iteration}, task {stored.episode.task.id}"
                self.findings.faults.append(f"{where}: a log-probability differs by {gap.largest:.3g} ({tolerance=:g})")
        if tokens and not total / tokens <= tolerance / 10:
            where = f"{chosen[0].phase}, iteration {chosen[0].iteration} and on"
            self.findings.faults.append(f"{where}: log-probabilities differ by {total / tokens:.3g} on average")
        self.findings.checked["log-probabilities computed again"] += tokens
        self.total += total

    @property
    def computed_in(self) -> str:
        """The coarsest type log-probabilities went through."""
        policy = self.cli.model.policy
        half = policy.dtype == torch.bfloat16 or policy.mixed is not None
        return "bfloat16" if half else str(policy.dtype).removeprefix("torch.")

    def sampled(self) -> Iterator[StoredEpisode]:
        """Episodes whose tokens were drawn from the policy's whole distribution."""
        for stored in read_episodes(self.folder / "episodes.jsonl"):
            s = self.sampling(stored)
            whole = s.temperature > 0 and s.top_p == 1 and s.top_k == 0
            if whole and stored.episode.turns and stored.episode.turns[0].policy_version >= 0:
                yield stored

    def sampling(self, stored: StoredEpisode) -> Sampling:
        """How an episode's actions were drawn."""
        data = self.cli.datamodule
        return data.sampling if stored.phase == "rl" else data.evaluation

    def sampler(self, stored: StoredEpisode) -> Sampler:
        """Whose actions they are."""
        version = stored.episode.turns[0].policy_version
        trained = "sft" if self.cli.model.demonstrated else "rl"
        place, _, measured = stored.phase.rpartition("/")  # "test/sft", "NAME/rl" for places elsewhere
        stage = measured if place else trained
        return self.start if stage == "rl" and version == 0 else (stage, version)

    @cached_property
    def start(self) -> Sampler:
        """What RL begins with."""
        last = self.folder / "checkpoints" / "sft" / "last.ckpt"
        return ("sft", int(read_checkpoint(last)["global_step"])) if last.is_file() else ("base", 0)

    def weights(self) -> dict[Sampler, Path | None]:
        """What the run began with (None: the untouched model), then one file for each set of weights that is there."""
        start = self.cli.value("start_from")
        found: dict[Sampler, Path | None] = {("base", 0): Path(start) if start else None}
        for path in sorted(self.folder.glob("checkpoints/*/*.ckpt")):
            found.setdefault((path.parent.name, int(read_checkpoint(path)["global_step"])), path)
        return found

    def report(self) -> str:
        """What was checked, and the verdict."""
        counts = [f"{count:>12,}  {what}" for what, count in self.findings.checked.items()]
        tokens = self.findings.checked["log-probabilities computed again"]
        mean = self.total / max(1, tokens)
        counts.append(f"{'':>14}they differ by {mean:.2g} on average and {self.largest:.2g} at most (nats)")
        counts.append(f"{self.unknown:>12,}  sampled tokens whose weights were not kept (fit --keep_weights N)")
        faults = self.findings.faults
        shown = [printable(f"FAULT {fault}") for fault in faults[:SHOWN]]
        verdict = f"{len(faults)} faults" if faults else "no fault"
        return "\n".join([*counts, *shown, f"{self.folder}: {verdict}"])


def audit(folder: Path, tolerance: float | None = None) -> Audit:
    """The command as a function.

    Raises:
        BadInput: it is no run folder, or one without a record of what was trained.
    """
    for name in ("config.yaml", "episodes.jsonl", "trained.jsonl"):
        if not (folder / name).is_file():
            raise BadInput(str(folder), f"it holds no {name}.", "Name a folder `lit_agents.fit` has trained in.")
    cli = FitCLI(["--config", str(folder / "config.yaml")])
    found = Audit(cli, folder)
    try:
        found.records()
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, BadInput):
            raise
        reason = f"a line of its records cannot be read ({type(error).__name__}: {error})."
        raise BadInput(str(folder), reason, "Let the run end, or go on with it, before it is audited.") from error
    found.logprobs(tolerance)
    return found


def main(args: Sequence[str] | None = None) -> int:
    """The command; 1 is its exit code if it found a fault."""
    parser = argparse.ArgumentParser(prog="python -m lit_agents.audit", allow_abbrev=False, description=__doc__)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--tolerance", type=float, help=f"nats; by default {_described(TOLERANCES)}")
    given = parser.parse_args(args)
    found: list[Audit] = []
    if code := run_command(lambda: found.append(audit(given.run, given.tolerance))):
        return code
    print(found[0].report())
    return 1 if found[0].findings.faults else 0


def _described(tolerances: Mapping[str, Any]) -> str:
    return ", ".join(f"{value:g} in {name}" for name, value in tolerances.items())


if __name__ == "__main__":
    sys.exit(main())
