"""Whole commands in seconds: a tiny model in a toy world. Tiny models run on one thread, as in the tests of the policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy.conftest import one_thread
from tests.tiny import tiny_model_folder

__all__ = ["one_thread"]

TOY = """\
name: toy
seed_everything: 1
model:
  class_path: lit_agents.algorithm.grpo.GRPO
  init_args:
    policy: {{class_path: lit_agents.policy.causal_lm.CausalLMPolicy, init_args: {{weights: {weights}}}}}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 1.0e-3}}}}
    warmup: 2
data:
  environment: {{class_path: lit_agents.environment.toy.EchoWorld}}
  tasks: r2-w2
  reward: {{class_path: lit_agents.reward.dense.ScoreGain}}
  train_tasks: 8
  validation_tasks: 4
  test_tasks: 4
  schedule: {{tasks: 2, group_size: 4, micro_batch_tokens: 640}}
  limits: {{turns: 2, context: 160, concurrent: 8}}
  sampling: {{max_tokens: 6}}
  evaluation: {{max_tokens: 6}}
sft:
  demonstrations: 16
  epochs: 6
  minibatches: 4
  optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 1.0e-2}}}}
trainer: {{max_epochs: 3, check_val_every_n_epoch: 2, accelerator: cpu}}
"""


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model."""
    return tiny_model_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def toy(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration whose stages all learn something; runs go below the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIT_AGENTS_RUN", raising=False)
    (tmp_path / "toy.yaml").write_text(TOY.format(weights=tiny_weights))
    return "toy.yaml"


ONE_ITERATION = ("--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1")
"""Of RL, and validated."""
