"""What `test_golden` runs in one process and in two: ``python two_ranks.py FOLDER OUT`` is one of two ranks."""

from __future__ import annotations

import sys
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, seed_everything

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.grpo import GRPO
from lit_agents.algorithm.kl import KL
from lit_agents.algorithm.ppo import PPO
from lit_agents.algorithm.reinforce_pp import ReinforcePP
from lit_agents.algorithm.rloo import RLOO
from lit_agents.environment.toy import EchoWorld
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.sampling import Sampling
from lit_agents.reward.base import Reward
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.schedule import Limits, Schedule
from lit_agents.types import Episode, TurnRewards
from tests.algorithm.trainers import trainer

CASES: dict[str, tuple[type[AgentModule], dict[str, Any]]] = {
    "grpo": (GRPO, {}),  # leaves out groups without signal, another number on each rank
    "grpo per episode": (GRPO, {"per_episode_mean": True}),
    "rloo": (RLOO, {"kl": KL(reward=0.1, target=0.001, horizon=50)}),
    "ppo": (PPO, {"critic_lr": 0.1}),
    "reinforce++": (ReinforcePP, {"kl": KL(loss=0.1)}),
}


class Checksum(Reward):
    """0 or 1 by the letters of the actions, so that a random policy meets groups with signal and groups without."""

    def __call__(self, episode: Episode) -> TurnRewards:
        return TurnRewards.of(
            {"sum": [float(zlib.crc32(t.action.encode("utf-8", "replace")) % 2) for t in episode.turns]}
        )


class Watcher(Callback):
    """Every row that is trained on: optimizer steps so far, the version that sampled it, the whole conversation."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, tuple[int, ...]]] = []
        self.parts: list[int] = []
        """How many each optimizer step had."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.parts.append(len(batch.parts))
        for tree in (part.tree for part in batch.parts):
            for last in tree.last_B.tolist():
                conversation = tuple(int(tree.ids_S[j]) for j in range(last + 1) if last < int(tree.ends_S[j]))
                self.rows.append((pl_module.global_step, batch.policy_version, conversation))


def run(case: str, folder: str, **settings: Any) -> dict[str, Any]:
    """Two iterations; what was trained on, and what came of it."""
    seed_everything(3, verbose=False)
    kind, options = CASES[case]
    policy = CausalLMPolicy(folder, dtype="float64")
    module = kind(policy, partial(torch.optim.SGD, lr=0.02), **options)
    data = RolloutDataModule(
        EchoWorld(), "r2-w4", reward=Checksum(), train_tasks=12,
        schedule=Schedule(tasks=8, group_size=2, micro_batch_tokens=200),
        limits=Limits(turns=3, context=160, concurrent=5), sampling=Sampling(max_tokens=6),
    )  # fmt: skip
    watcher = Watcher()
    try:
        fitted = trainer(max_epochs=2, limit_val_batches=0, callbacks=[watcher], **settings)
        policy.load()
        before = {n: p.detach().clone() for n, p in module.named_parameters()}
        fitted.fit(module, datamodule=data)
    finally:
        data.close()
    weights = {n: p.detach() for n, p in module.named_parameters()}
    assert data.latest is not None
    return {
        "rows": watcher.rows,
        "parts": watcher.parts,
        "weights": weights,
        "moved": max(float((weights[n] - p).abs().max()) for n, p in before.items()),
        "kl_coefficient": module.kl_coefficient,
        "silent": data.latest.groups_without_signal,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = {case: run(case, sys.argv[1], strategy="ddp", devices=2) for case in CASES}
    rank = torch.distributed.get_rank()
    torch.save(found, Path(sys.argv[2]) / f"rank{rank}.pt")
