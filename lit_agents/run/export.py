"""A checkpoint written as a model folder."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from lit_agents.algorithm.checkpoint import read_checkpoint, refuse_incomplete, refuse_other
from lit_agents.errors import BadInput
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.loading import read, save_model
from lit_agents.policy.merge_lora import folded
from lit_agents.run.folder import run_of
from lit_agents.system.yaml_text import read_yaml

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


CONFIG = "lit_agents.yaml"
"""The run's configuration, in a folder with the model."""


def export(checkpoint: Path, folder: Path, dtype: str = "float32") -> None:
    """The command as a function.

    Args:
        checkpoint: in its run folder, of either stage.
        folder: to be made; it appears whole or not at all.
        dtype: of the weights. ``float32`` keeps all that adapters have learnt; ``bfloat16`` is half as large, and rounds each
            weight, its adapter's part included, to 8 bits.

    Raises:
        BadInput: the checkpoint is not one of a run folder, or the folder cannot be made.
    """
    config = config_of(checkpoint)
    with _beside(folder) as scratch:
        made = Path(scratch) / "model"
        write_model(policy_of(config, checkpoint), made, DTYPES[dtype])
        shutil.copyfile(config, made / CONFIG)
        os.replace(made, folder.resolve())


def config_of(checkpoint: Path) -> Path:
    """The configuration of the run that a checkpoint lies in.

    Raises:
        BadInput: it lies in none.
    """
    if not os.path.isfile(checkpoint):
        raise BadInput(str(checkpoint), "there is no such file.", "Name a .ckpt inside its run folder.")
    run = run_of(checkpoint)
    if run is None:
        reason = "it does not lie in checkpoints/<stage>/ of a run folder."
        raise BadInput(str(checkpoint), reason, "Name a .ckpt inside its run folder.")
    return run / "config.yaml"


def policy_of(config: Path, checkpoint: Path) -> CausalLMPolicy:
    """The policy of a run as it was when a checkpoint was written; nothing else of the run has to be installed.

    Raises:
        BadInput: the configuration cannot be read, or is not that of the checkpoint.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--policy", type=CausalLMPolicy)
    try:
        chosen = read_yaml(config.read_text(encoding="utf-8"))["model"]["init_args"]["policy"]
        policy: CausalLMPolicy = parser.instantiate(parser.parse_object({"policy": chosen})).policy
    except (OSError, KeyError, TypeError, yaml.YAMLError, argparse.ArgumentError) as error:
        reason = f"no policy can be read from it ({type(error).__name__}: {error})."
        raise BadInput(str(config), reason, "Put back the one that `lit_agents.fit` has written.") from error
    content = read_checkpoint(checkpoint, "")
    refuse_other(content, {"policy": policy.identity}, str(checkpoint))
    policy.load()
    trained = {f"policy.{name}": p for name, p in policy.trainable.items()}
    refuse_incomplete(content, trained, str(checkpoint))
    weights = {n.removeprefix("policy."): w for n, w in content["state_dict"].items() if n.startswith("policy.")}
    policy.load_state_dict(weights, strict=False)
    return policy


def write_model(policy: CausalLMPolicy, folder: Path, dtype: torch.dtype) -> None:
    """What ``from_pretrained`` reads, of the policy as it is now.

    Args:
        policy: loaded.
        folder: to be made.
        dtype: of the weights.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models: Any = AutoModelForCausalLM
    how = {"dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
    model = read(policy.weights, lambda: models.from_pretrained(policy.folder, **how))
    left = dict(model.named_parameters())  # as in the policy, a matrix with two names is there under the first
    for name, value in folded(policy, dtype):  # one after another: two models are enough in memory
        left.pop(name).data.copy_(value)
    if left:
        raise RuntimeError(f"not in the policy: {', '.join(left)}")
    # a folder that says otherwise than its matrices is not read alike by all that read it
    model.config.tie_word_embeddings = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    save_model(model, folder)
    AutoTokenizer.from_pretrained(policy.folder, trust_remote_code=False).save_pretrained(folder)


def _beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Where the model is made, on the disk where it will be; known to be possible before anything is loaded.

    Raises:
        BadInput: the folder cannot be made, or is not empty.
    """
    try:
        target = folder.resolve()
        if target.is_mount() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
            raise BadInput(str(folder), "it is there, and not an empty folder.", "Name one that is not there yet.")
        target.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-")
    except OSError as error:
        raise BadInput(str(folder), f"it cannot be made ({error.strerror}).", "Name another folder.") from error
