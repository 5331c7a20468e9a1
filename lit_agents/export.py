"""Write a checkpoint as a model: ``python -m lit_agents.export runs/NAME/checkpoints/rl/best.ckpt FOLDER [--dtype bfloat16]``.

The folder is what transformers, vLLM and ``policy.weights`` read: adapters are added to the matrices they belong to; tokenizer
and chat template are those of the model the run began with. ``lit_agents.yaml`` in it is the run's configuration, which says what
the agent was told and how it was sampled. A critic, the reference policy and the optimizer are left behind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lit_agents.run.export import DTYPES, export
from lit_agents.system.command import run_command


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lit_agents.export", allow_abbrev=False, description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a .ckpt inside its run folder")
    parser.add_argument("folder", type=Path, help="where the model is written; must not be there yet")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights (default: %(default)s)")
    given = parser.parse_args(args)
    if code := run_command(lambda: export(given.checkpoint, given.folder, given.dtype)):
        return code
    print(f"model: {given.folder} ({given.dtype})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
