"""The configuration a run saves makes the same run again, bit for bit on a CPU."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lit_agents.fit import fit
from tests.integration.conftest import ONE_ITERATION


def without_clock(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith(("_seconds", "/s"))} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--model", "lit_agents.algorithm.ppo.PPO", "--model.kl.reward", "0.01", "--model.dual_clip", "null"],
        ["--model.policy.init_args.lora.rank", "4", "--model.policy.init_args.dtype", "bfloat16"],
    ],
    ids=["grpo", "ppo", "lora in bfloat16"],
)
def test_the_saved_configuration_reproduces_the_run(toy, args):
    fit(["--config", toy, *args, "--data.schedule.passes", "2"])
    first, second = Path("runs/toy-1"), Path("runs/toy-2")
    fit(["--config", str(first / "config.yaml")])
    assert without_clock(second / "metrics.csv") == without_clock(first / "metrics.csv")
    for name in ("config.yaml", "episodes.jsonl", "summary.json"):
        assert (second / name).read_bytes() == (first / name).read_bytes(), name


def test_another_seed_makes_another_run(toy):
    fit(["--config", toy, *ONE_ITERATION])
    fit(["--config", toy, *ONE_ITERATION, "--seed_everything", "2"])
    assert Path("runs/toy-1/episodes.jsonl").read_bytes() != Path("runs/toy-2/episodes.jsonl").read_bytes()


def test_a_setting_that_was_switched_off_stays_off_in_the_saved_configuration(toy):
    fit(["--config", toy, "--model.dual_clip", "null", "--trainer.max_epochs", "0", "--sft", "null"])
    saved = Path("runs/toy-1/config.yaml").read_text()
    assert "dual_clip: null" in saved and "\nsft: null" in saved
    assert "\nrun:" not in saved and "\nckpt_path:" not in saved
