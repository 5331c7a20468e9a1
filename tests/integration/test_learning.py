"""Every algorithm learns a small world of several turns from beginning to end: real Trainer, data module, engine, processes.

A random model does not stumble on a word of four letters, so a few demonstrations come first; they leave it far from good.
Success is measured by sampling at temperature 1 on tasks that were in neither stage; who always says one word wins 1 in 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.grpo import GRPO
from lit_agents.algorithm.ppo import PPO
from lit_agents.algorithm.reinforce_pp import ReinforcePP
from lit_agents.algorithm.rloo import RLOO
from lit_agents.algorithm.sft import SFT
from lit_agents.environment.toy import EchoWorld
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.sampling import Sampling
from lit_agents.reward.dense import ScoreGain
from lit_agents.rollout.agents import PolicyPlayer
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.schedule import Limits, Schedule
from tests.algorithm.trainers import QUIET, trainer
from tests.tiny import tiny_model_folder

pytestmark = QUIET
ITERATIONS = 200
"""At most; training stops once it plays well."""


@pytest.fixture
def data() -> Iterator[RolloutDataModule]:
    """Two rounds of three words; each right answer is worth a half."""
    made = RolloutDataModule(
        EchoWorld(), "r2-w3", reward=ScoreGain(), train_tasks=64, test_tasks=128,
        schedule=Schedule(tasks=8, group_size=8, minibatches=2),
        limits=Limits(turns=4, context=200, concurrent=64), sampling=Sampling(max_tokens=8),
    )  # fmt: skip
    yield made
    made.close()


class PlaysWell(Callback):
    """Ends training when 96 % of the last five iterations were won."""

    def __init__(self, data: RolloutDataModule) -> None:
        self.data, self.rates = data, list[float]()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.data.latest is not None
        won = [e.won for e in self.data.latest.episodes]
        self.rates.append(sum(won) / len(won))
        trainer.should_stop = len(self.rates) >= 5 and sum(self.rates[-5:]) >= 0.96 * 5


def success(data: RolloutDataModule, policy: CausalLMPolicy) -> float:
    data.engine.refresh()
    player, sampling = PolicyPlayer(data.engine, policy.chat, Sampling(max_tokens=8), 0), Sampling(max_tokens=8)
    episodes = data.open(policy).evaluate(data.split("test"), player, sampling, 0, lambda *_: None)
    return sum(e.won for e in episodes) / len(episodes)


def imitate(data: RolloutDataModule, policy: CausalLMPolicy, epochs: int) -> None:
    sft = SFT(policy, partial(torch.optim.AdamW, lr=3e-3))
    trainer(max_epochs=epochs, limit_val_batches=0).fit(sft, datamodule=data.demonstrations(48, 2))


@pytest.mark.parametrize(
    "kind", [PPO, GRPO, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (RLOO, ReinforcePP))]
)
def test_it_learns(data: RolloutDataModule, tmp_path: Path, kind: type[AgentModule]):
    seed_everything(0, verbose=False)
    policy = CausalLMPolicy(str(tiny_model_folder(tmp_path)))
    data.open(policy)
    assert success(data, policy) == 0.0
    imitate(data, policy, epochs=26)
    before = success(data, policy)
    assert 0.2 <= before <= 0.65
    module = kind(policy, partial(torch.optim.AdamW, lr=5e-4, weight_decay=0.0))
    fitted = trainer(max_epochs=ITERATIONS, limit_val_batches=0, gradient_clip_val=1.0, callbacks=[PlaysWell(data)])
    fitted.fit(module, datamodule=data)
    after = success(data, policy)
    assert after >= 0.9 and after >= before + 0.25
    iterations = fitted.current_epoch
    assert data.ledger.episodes == iterations * 64 and data.ledger.demonstrations == 48
    assert fitted.global_step == iterations * 2
