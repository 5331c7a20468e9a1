"""Audit a run: ``python -m lit_agents.audit RUN [--tolerance NATS] [--replay [EPISODES]]``.

Reads the run's files again and holds them against each other and against its configuration. It fails if a trained token is
not the sampled one, the loss covers anything but the agent's own tokens, an episode is missing, double or not trained on, a
reward, an advantage, a rate, a count or a cost is not what the stored episodes give, or log-probabilities computed again with
the weights that sampled them differ by more than the tolerance. ``--replay`` plays the stored actions again. The last line says
what was not checked. Weights are those of the checkpoints there are: `fit` keeps more of them with ``--keep_weights``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_agents.evaluation.audit.logprobs import TOLERANCES
from lit_agents.run.audit import Audit, audit
from lit_agents.system.command import run_command


def main(args: Sequence[str] | None = None) -> int:
    """The command; 1 is its exit code if it found a fault."""
    parser = argparse.ArgumentParser(prog="python -m lit_agents.audit", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--tolerance", type=float, help=f"nats; by default {_described(TOLERANCES)}")
    again = "play the actions of so many episodes again, chosen by chance, or of all; needs the tasks of the run"
    parser.add_argument("--replay", type=_count, nargs="?", const=0, metavar="EPISODES", help=again)
    given = parser.parse_args(args)
    found: list[Audit] = []
    if code := run_command(lambda: found.append(audit(given.run, given.tolerance, given.replay))):
        return code
    print(found[0].report())
    return 1 if found[0].findings.faults else 0


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of episodes above 0")
    return int(text)


def _described(tolerances: Mapping[str, Any]) -> str:
    return ", ".join(f"{value:g} in {name}" for name, value in tolerances.items())


if __name__ == "__main__":
    sys.exit(main())
