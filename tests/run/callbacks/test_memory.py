"""The preflight: the longest micro-batch there can be, its memory, and no trace of it in the run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_agents.fit import fit, main
from lit_agents.rollout.schedule import Schedule
from lit_agents.run.callbacks import memory
from lit_agents.run.callbacks.memory import longest_at_once, peak, worst_case
from tests.integration.conftest import ONE_ITERATION, one_thread, tiny_weights, toy
from tests.integration.test_kill import assert_same_run

__all__ = ["one_thread", "tiny_weights", "toy"]


@pytest.mark.parametrize(
    ("turns", "context", "max_tokens", "played"), [(8, 1024, 24, 8), (8, 100, 24, 4), (3, 100, 7, 3)]
)
def test_the_worst_case_is_as_long_as_the_context_and_shares_nothing(turns, context, max_tokens, played):
    (batch,) = worst_case(3, turns, context, max_tokens, 49_152).parts
    tree = batch.tree
    assert len(tree.ids_S) == tree.tokens == 3 * context
    assert int(tree.mask_BA.sum()) == len(tree.targets_U) == 3 * played * max_tokens
    assert tree.positions_S.max() == context - 1 and float(batch.weights_BA.sum()) == pytest.approx(1)


def test_as_many_long_episodes_go_at_once_as_the_budget_allows_and_as_a_minibatch_has():
    assert longest_at_once(Schedule(tasks=16, group_size=4, minibatches=4), 1024, 1) == 16
    assert longest_at_once(Schedule(tasks=16, group_size=4, micro_batch_tokens=8191), 1024, 1) == 7
    assert longest_at_once(Schedule(tasks=6, group_size=3, minibatches=2), 160, 2) == 5
    assert longest_at_once(Schedule(micro_batch_tokens=1024), 1024, 1) == 1


@pytest.mark.skipif(not memory.RESET.exists(), reason="resident memory is only reset on Linux")
def test_a_peak_is_that_of_the_work_and_not_of_what_was_before():
    cpu = torch.device("cpu")
    before = peak(cpu, lambda: None)
    large = peak(cpu, lambda: torch.ones(100_000_000).sum())  # 400 MB
    assert 380e6 < large - before < 450e6
    assert peak(cpu, lambda: None) - before < 50e6


@pytest.mark.parametrize("algorithm", ["grpo.GRPO", "ppo.PPO"])
def test_the_run_is_the_same_with_and_without_it(toy: str, capfd, algorithm: str):
    args = ["--config", toy, "--model", f"lit_agents.algorithm.{algorithm}", "--model.dual_clip", "3", *ONE_ITERATION]
    fit([*args, "--run", "without"])
    capfd.readouterr()
    fit([*args, "--run", "with", "--preflight", "true"])
    error = capfd.readouterr().err
    assert error.count("preflight: a training step on 4 episodes of 160 tokens that share nothing takes") == 2
    for run in ("with", "without"):
        path = Path(run, "config.yaml")
        path.write_text(re.sub("preflight: .*", "", path.read_text()))
        summary = Path(run, "summary.json")
        summary.write_text(re.sub(r'"config.yaml": "\w+"', "", summary.read_text()))
    assert_same_run(Path("with"), Path("without"))


def gigabytes(text: str) -> float:
    found = re.search(r"takes ([\d.]+) GB", text)
    assert found
    return float(found[1])


@pytest.mark.slow
def test_longer_contexts_and_more_tokens_at_once_need_more(toy: str, capfd):
    args = ["--config", toy, *ONE_ITERATION, "--sft", "null", "--preflight", "true", "--data.schedule.tasks", "8"]
    needs = []
    for context, budget in ((160, 2560), (2000, 32_000), (2000, 64_000)):
        capfd.readouterr()
        fit([*args, "--data.limits.context", str(context), "--data.schedule.micro_batch_tokens", str(budget)])
        needs.append(gigabytes(capfd.readouterr().err))
    assert needs[0] + 0.05 < needs[1] < needs[2] - 0.05


def test_what_does_not_fit_is_refused_before_the_first_iteration(toy: str, capfd, monkeypatch):
    monkeypatch.setattr(memory, "there_is", lambda _: 1e6)
    assert main(["--config", toy, "--sft", "null", "--preflight", "true", "--run", "run"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: data.schedule.micro_batch_tokens: a training step on 4 episodes of 160 tokens")
    assert "Lower it, or data.limits.context" in error and not Path("run/metrics.csv").exists()


@pytest.mark.slow
def test_a_step_on_8_conversations_of_2048_tokens_takes_less_than_6_gigabytes():
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.integration.longest_step"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    tokens, taken = map(int, done.stdout.split())
    assert tokens == 8 * 2048
    assert 0.3e9 < taken < 6e9  # the weights alone are .27
