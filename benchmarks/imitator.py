"""The policy that benchmarks of episodes begin with: SmolLM2-135M-Instruct after the quickstart's supervised stage.

An untouched model ends most episodes with its first words, and nothing would be measured but those. `imitator` makes the
model, once, in a minute or two, and keeps it in the cache as an ordinary folder of weights that any library can load.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import torch

from lit_agents.algorithm.sft import SFT
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.run.cli import FitCLI
from lit_agents.system.cache import cache_folder

CONFIG = Path(__file__).parents[1] / "conf" / "textworld" / "quickstart.yaml"


def imitator() -> str:
    """Its folder; named after the configuration's text, so that another configuration makes another."""
    folder = cache_folder("weights") / f"imitator-{hashlib.sha256(CONFIG.read_bytes()).hexdigest()[:12]}"
    if folder.is_dir():
        return str(folder)
    print("making the policy to begin with", flush=True)
    cli = FitCLI(["--config", str(CONFIG), "--trainer.limit_val_batches=0", "--trainer.enable_checkpointing=false"])
    stage, data, policy = cli.value("sft"), cli.datamodule, cli.model.policy
    shown = data.demonstrations(stage.demonstrations, stage.minibatches)
    try:
        cli.trainer_for([], max_epochs=stage.epochs).fit(SFT(policy, stage.optimizer), shown)
    finally:
        shown.close()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fold(policy, Path(scratch) / "model")
        os.replace(Path(scratch) / "model", folder)
    return str(folder)


def fold(policy: CausalLMPolicy, folder: Path) -> None:
    """Write the policy with its adapters folded into the weights, which are then rounded to bfloat16 once."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(policy.folder, dtype=torch.float32)
    for name, layer in policy.hf.named_modules():
        if hasattr(layer, "get_delta_weight"):
            model.get_submodule(name).weight.data += layer.get_delta_weight("default").detach().float()
    model.bfloat16().save_pretrained(folder)
    policy.chat.tokenizer.save_pretrained(folder)
