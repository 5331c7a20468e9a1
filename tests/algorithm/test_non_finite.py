"""Gradients and weights that are not finite end the run before they are written into a checkpoint."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_agents.algorithm.grpo import GRPO
from lit_agents.policy.non_finite import NonFinite
from tests.algorithm.hand_fed import collected, cut, made, train
from tests.algorithm.trainers import QUIET

pytestmark = QUIET


def test_gradients_that_are_not_finite_are_said_before_the_step(folder: Path, monkeypatch):
    module = made(GRPO, folder)
    found = collected(module)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    plain = GRPO._loss_of_part
    monkeypatch.setattr(GRPO, "_loss_of_part", lambda self, batch: plain(self, batch) * float("inf"))
    with pytest.raises(
        NonFinite, match=r"optimizer step 0: non-finite gradients; all weights are finite, the largest is"
    ):
        train(module, lambda: cut(module, found))
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())


def test_weights_that_are_not_finite_are_in_no_checkpoint(folder: Path, tmp_path: Path):
    module = made(GRPO, folder, optimizer=partial(torch.optim.SGD, lr=float("inf")))
    found = collected(module)
    checkpoints = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)
    with pytest.raises(
        NonFinite, match=r"after 1 optimizer steps: non-finite weights; the weight \S+ is itself not finite"
    ):
        train(module, lambda: cut(module, found), callbacks=[checkpoints], enable_checkpointing=True)
    assert not list(tmp_path.glob("*.ckpt"))
