"""One whole iteration of GRPO on TextWorld: where its seconds go, and how many tokens are computed per unique one.

    python benchmarks/iteration.py [--groups 8] [--size 8] [--turns 8]

Runs Lightning's Trainer as `python -m lit_agents.fit` does, one iteration to warm up and one that counts. The last line is one
JSON object; its ratio is to the same iteration with the update in padded batches, LM head on action tokens alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from setting import Clock, described, parser, policy_of, unique_tokens

from lit_agents.algorithm.grpo import GRPO
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.schedule import Limits, Schedule
from lit_agents.types import Minibatch


class Iterations(Callback):
    """Seconds and tokens of each."""

    def __init__(self, clock: Clock, engine: TransformersEngine) -> None:
        self.clock, self.engine = clock, engine
        self.found: list[dict[str, Any]] = []
        self.minibatches: dict[int, Minibatch] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.clear()
        self.engine.cost.computed_tokens = 0
        self.begun = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.minibatches[batch_idx] = batch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = {"whole": time.perf_counter() - self.begun, **self.clock.seconds}
        data: RolloutDataModule = trainer.datamodule  # type: ignore[attr-defined]
        assert data.latest is not None
        groups = [group.episodes for group in data.latest.groups]
        trained = pl_module._tally.computed_tokens if hasattr(pl_module, "_tally") else 0
        self.found.append(
            {"seconds": seconds, "groups": groups, "rollout": self.engine.cost.computed_tokens, "update": trained}
        )


def padded_update(module: GRPO, minibatches: Iterable[Minibatch]) -> float:
    """Seconds of the same update without token trees."""
    module.policy.takes_trees = False
    module.policy.hf.set_attn_implementation("sdpa")
    begun = time.perf_counter()
    for minibatch in minibatches:
        module.training_step(minibatch)
    return time.perf_counter() - begun


def main() -> None:
    args = parser(__doc__).parse_args()
    policy, engine, clock = policy_of(args), TransformersEngine(), Clock()
    schedule = Schedule(tasks=args.groups, group_size=args.size, minibatches=min(4, args.groups))
    limits = Limits(turns=args.turns, context=1024, concurrent=args.groups * args.size)
    data = RolloutDataModule(
        TextWorld(), args.spec, train_tasks=2 * args.groups, schedule=schedule, limits=limits, engine=engine
    )
    module = GRPO(policy, optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-5), divide_by_std=False)
    module.skips_zero_advantage = False  # all episodes are trained on, so that the tokens of both halves compare
    stage = data.open(policy)
    clock.watch(stage._pool, "environments", "reset", "step")
    clock.watch(engine, "prefill", "_read")
    clock.watch(engine, "decode", "_say", "_step")
    clock.watch(module, "update", "training_step")
    iterations = Iterations(clock, engine)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(max_epochs=2, limit_val_batches=0, callbacks=[iterations], **quiet).fit(module, datamodule=data)
    data.close()
    found = iterations.found[-1]
    seconds, episodes = found["seconds"], [e for group in found["groups"] for e in group]
    seconds["other"] = 2 * seconds["whole"] - sum(seconds.values())
    print(described(episodes, args.size))
    for part, spent in seconds.items():
        print(f"  {part:13} {spent:7.2f} s  {spent / seconds['whole']:6.1%}")
    unique, padded = unique_tokens(found["groups"]), padded_update(module, iterations.minibatches.values())
    result = {
        "ratios": {"padded_update": round((seconds["whole"] - seconds["update"] + padded) / seconds["whole"], 2)},
        "tokens_per_unique": {part: round(found[part] / unique, 3) for part in ("rollout", "update")},
        "environments_share": round(seconds["environments"] / seconds["whole"], 4),
        "seconds": {part: round(spent, 2) for part, spent in seconds.items()},
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
