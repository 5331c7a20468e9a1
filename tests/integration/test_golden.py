"""A run is a function of its seed, and of nothing else: not of the clock, and not of the number of processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, seed_everything
from transformers import AutoModelForCausalLM

from lit_agents.algorithm.experience import Iteration
from lit_agents.algorithm.grpo import GRPO
from lit_agents.environment.toy import EchoWorld
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.sampling import Sampling
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.schedule import Limits, Schedule
from tests.algorithm.trainers import QUIET, trainer
from tests.integration import two_ranks
from tests.tiny import tiny_model_folder

pytestmark = QUIET


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, sharper, and with an end-of-turn token that is likely in some situations."""
    path = tiny_model_folder(tmp_path_factory.mktemp("tiny"))
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4.0 if p.ndim == 2 else 1.0)
        model.get_input_embeddings().weight[model.config.eos_token_id] *= 6
    model.save_pretrained(path)
    return path


class Numbers(Callback):
    """Everything an iteration logs, and what was played in it."""

    def __init__(self, data: RolloutDataModule) -> None:
        self.data, self.rows = data, list[dict[str, float]]()
        self.played: list[list[str]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        assert self.data.latest is not None
        self.played.append([turn.action for e in self.data.latest.episodes for turn in e.turns])
        self.rows.append(dict(pl_module.numbers))


def five_iterations(folder: Path, seed: int) -> tuple[list[dict[str, float]], list[list[str]], dict[str, torch.Tensor]]:
    seed_everything(seed, verbose=False)
    policy = CausalLMPolicy(str(folder))
    data = RolloutDataModule(
        EchoWorld(), "r2-w4", reward=two_ranks.Checksum(), train_tasks=12,
        schedule=Schedule(tasks=4, group_size=4, minibatches=2, micro_batch_tokens=500),
        limits=Limits(turns=3, context=160, concurrent=6), sampling=Sampling(max_tokens=6), seed=seed,
    )  # fmt: skip
    numbers = Numbers(data)
    try:
        module = GRPO(policy, partial(torch.optim.AdamW, lr=1e-3))
        callbacks = [numbers]
        trainer(max_epochs=6, limit_val_batches=0, callbacks=callbacks).fit(module, datamodule=data)
    finally:
        data.close()
    return numbers.rows[1:], numbers.played, {n: p.detach() for n, p in module.named_parameters()}


def test_the_same_seed_gives_the_same_run_bit_for_bit_and_another_seed_another(folder: Path):
    first, again, other = (five_iterations(folder, seed) for seed in (1, 1, 2))
    assert first[:2] == again[:2] and len(first[0]) == 5
    assert all(torch.equal(t, again[2][n]) for n, t in first[2].items())
    assert first[1] != other[1] and first[0] != other[0]
    assert all({"loss", "policy_loss", "clip_fraction", "entropy", "logprob_gap"} <= set(row) for row in first[0])
    assert all(math.isfinite(v) for row in first[0] for v in row.values())


class Lazy(RolloutDataModule):
    """Plays once and trains on that for ever, as with a loader that is not made anew."""

    def _collect(self) -> Iteration:
        return self.latest or super()._collect()


def test_rollouts_of_an_earlier_iteration_are_refused_by_the_trainer(folder: Path):
    module = GRPO(CausalLMPolicy(str(folder)), partial(torch.optim.SGD, lr=0.01))
    data = Lazy(
        EchoWorld(), "r2-w4", reward=two_ranks.Checksum(), train_tasks=12, schedule=Schedule(tasks=2, group_size=4),
        limits=Limits(turns=3, context=160, concurrent=6), sampling=Sampling(max_tokens=6),
    )  # fmt: skip
    try:
        with pytest.raises(RuntimeError, match="stale batch: sampled at policy version 0, trained at 1"):
            trainer(max_epochs=2, limit_val_batches=0).fit(module, datamodule=data)
        assert module.global_step == 1
    finally:
        data.close()


@pytest.fixture(scope="module")
def ranks(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes find, each case."""
    out = tmp_path_factory.mktemp("ranks")
    root = Path(two_ranks.__file__).parents[2]
    settings = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(Path(two_ranks.__file__)), str(folder), str(out)]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", two_ranks.CASES)
def test_two_processes_do_together_what_one_does_alone(folder: Path, ranks: list[dict[str, Any]], case: str):
    alone = two_ranks.run(case, str(folder))
    parts = [rank[case] for rank in ranks]
    # every rollout is trained on once, by one rank, with the weights that played it
    assert sorted(parts[0]["rows"] + parts[1]["rows"]) == sorted(alone["rows"])
    assert all(step == version for step, version, _ in alone["rows"])
    assert {step for step, _, _ in alone["rows"]} == {0, 1} and min(len(p["rows"]) for p in parts) > 0
    if case in ("ppo", "reinforce++"):
        assert len(alone["rows"]) == 2 * 16
    else:  # groups without signal are left out
        assert len(alone["rows"]) < 2 * 16 and (case == "rloo" or alone["silent"] > 0)
    # and the weights are those of one process
    assert alone["moved"] > 1e-3
    for name, expected in alone["weights"].items():
        for part in parts:
            torch.testing.assert_close(part["weights"][name], expected, rtol=0, atol=1e-6)
    assert [p["kl_coefficient"] for p in parts] == pytest.approx([alone["kl_coefficient"]] * 2, rel=1e-6)
    assert parts[0]["kl_coefficient"] == parts[1]["kl_coefficient"]


def test_the_two_processes_need_not_make_as_many_parts_of_a_step_as_each_other(ranks: list[dict[str, Any]]):
    assert sum(ranks[0][case]["parts"] != ranks[1][case]["parts"] for case in two_ranks.CASES) >= 2
