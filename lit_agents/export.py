"""Write a checkpoint as a model: ``python -m lit_agents.export runs/NAME/checkpoints/rl/best.ckpt FOLDER [--dtype bfloat16]``.

The folder is what transformers, vLLM and ``policy.weights`` read: adapters are added to the matrices they belong to; tokenizer
and chat template are those of the model the run began with. ``lit_agents.yaml`` in it is the run's configuration, which says what
the agent was told and how it was sampled. A critic, the reference policy and the optimizer are left behind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lit_agents.cli import run_command
from lit_agents.errors import BadInput
from lit_agents.evaluate import checkpoint_of
from lit_agents.fit import FitCLI
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.folded import folded
from lit_agents.policy.loading import read

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONFIG = "lit_agents.yaml"
"""The run's configuration, in a folder with the model."""
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".gguf", ".md")
"""Endings of what is not taken over from the model that the run began with: its weights, and what is said of it."""


def export(checkpoint: Path, folder: Path, dtype: str = "float32") -> None:
    """The command as a function.

    Args:
        checkpoint: in its run folder.
        folder: to be made; it appears whole or not at all.
        dtype: of the weights. ``float32`` keeps all that adapters have learnt; ``bfloat16`` is half as large, and rounds each
            weight, its adapter's part included, to 8 bits.

    Raises:
        BadInput: the checkpoint is not one of a run folder, or the folder cannot be made.
    """
    config = checkpoint.resolve().parent.parent.parent / "config.yaml" if checkpoint.is_file() else None
    if config is None or not config.is_file():
        reason = (
            "there is no such file." if config is None else "it does not lie in checkpoints/<stage>/ of a run folder."
        )
        raise BadInput(str(checkpoint), reason, "Name a .ckpt inside its run folder.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(str(folder), "it is there, and not empty.", "Name a folder that is not there yet.")
    cli = FitCLI(["--config", str(config), "--ckpt_path", str(checkpoint)])
    content = checkpoint_of(cli, "ckpt_path")
    assert content is not None
    cli.model.configure_model()
    cli.model.restore(content)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            made = Path(scratch) / "model"
            write_model(cli.model.policy, made, DTYPES[dtype])
            shutil.copyfile(config, made / CONFIG)
            os.replace(made, folder)
    except PermissionError as error:
        raise BadInput(str(folder), f"it cannot be made ({error.strerror}).", "Name another folder.") from error


def write_model(policy: CausalLMPolicy, folder: Path, dtype: torch.dtype) -> None:
    """What ``from_pretrained`` reads, of the policy as it is now.

    Args:
        policy: loaded.
        folder: to be made.
        dtype: of the weights.
    """
    from transformers import AutoModelForCausalLM

    models: Any = AutoModelForCausalLM
    how = {"dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
    model = read(policy.weights, lambda: models.from_pretrained(policy.folder, **how))
    left = dict(model.named_parameters())  # as in the policy, a matrix with two names is there under the first
    for name, value in folded(policy, dtype):  # one after another: two models are enough in memory
        left.pop(name).data.copy_(value)
    if left:
        raise RuntimeError(f"not in the policy: {', '.join(left)}")
    model.save_pretrained(folder)
    for file in policy.folder.iterdir():
        if file.is_file() and not (folder / file.name).exists() and not file.name.endswith(WEIGHTS):
            shutil.copyfile(file, folder / file.name)


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lit_agents.export", description=__doc__)
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
