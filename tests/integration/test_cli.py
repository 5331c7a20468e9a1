"""The commands as a person meets them: help, evaluation, and two processes."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_agents import evaluate as evaluate_command
from lit_agents import fit as fit_command
from lit_agents.evaluate import evaluate
from lit_agents.evaluation.console import print_table
from lit_agents.fit import fit
from lit_agents.run.audit import audit
from tests.integration.conftest import ONE_ITERATION
from tests.tiny import tiny_model_folder

ROOT = Path(__file__).parents[2]


def run(*args: str, seconds: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *args]
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | env
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=seconds, check=False)


@pytest.mark.parametrize("command", ["fit", pytest.param("evaluate", marks=pytest.mark.slow), "tasks"])
def test_help_is_there_and_says_how_it_is_called(command):
    done = run(f"lit_agents.{command}", "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"usage: python -m lit_agents.{command}")


@pytest.mark.parametrize("command", [fit_command, evaluate_command], ids=["fit", "evaluate"])
def test_help_explains_the_settings(command, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("--data.schedule.group_size", "Episodes per task.", "--ckpt_path", "supervised stage before RL"):
        assert words in text


def test_the_configuration_can_be_printed_and_read_again(toy, capsys):
    with pytest.raises(SystemExit) as stop:
        fit_command.main(["--config", toy, "--data.schedule.tasks", "4", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["schedule"]["tasks"] == 4
    assert not Path("runs").exists()


def test_evaluation_puts_the_policy_between_its_floor_and_its_ceiling(toy, capfd):
    fit(["--config", toy, "--run", "run"])
    capfd.readouterr()
    args = ["--config", "run/config.yaml", "--ckpt_path", "run/checkpoints/rl/best.ckpt", "--output", "numbers.json"]
    assert evaluate_command.main(args) == 0
    out, err = capfd.readouterr()
    assert err == "" and [line.split()[1] for line in out.splitlines() if re.match("│ ", line)] == [
        "random",
        "policy",
        "expert",
    ]
    assert max(map(len, out.splitlines())) <= 80
    numbers = json.loads(Path("numbers.json").read_text())
    assert numbers["success"]["expert"]["rate"] == 1.0
    summary = json.loads(Path("run/summary.json").read_text())
    assert numbers["success"]["policy"] == summary["success"]["rl"]  # the same games, the same random numbers


def test_the_supervised_stage_and_the_untouched_model_can_be_evaluated_too(toy):
    success = fit(["--config", toy]).results
    before = sorted(Path("runs").rglob("*"))
    assert evaluate(["--config", toy])["policy"] == success["base"]
    assert (
        evaluate(["--config", toy, "--ckpt_path", "runs/toy-1/checkpoints/sft/last.ckpt"])["policy"] == success["sft"]
    )
    assert sorted(Path("runs").rglob("*")) == before


def test_other_tasks_can_be_asked_for(toy):
    results = evaluate(["--config", toy, "--data.tasks", "r3-w4", "--data.limits.turns", "3", "--data.test_tasks", "6"])
    assert {r.conditions.tasks for r in results.values()} == {"r3-w4"} and results["expert"].n == 6
    assert results["expert"].conditions.split == "test" and results["expert"].turns == 3


def test_a_world_that_breaks_is_counted_below_the_table(toy, capsys):
    results = evaluate(["--config", toy])
    broken = type(results["policy"])(**(vars(results["policy"]) | {"failures": 2}))
    capsys.readouterr()
    print_table("title", {"policy": broken})
    assert "episodes the environment broke, not in n: policy 2" in capsys.readouterr().out


def test_a_title_longer_than_the_table_is_not_broken(capsys):
    print_table("w2-o3-q4, test split, 8 turns, temperature 1, seed 1, 12.3 min", {})
    assert "w2-o3-q4, test split, 8 turns, temperature 1, seed 1, 12.3 min" in capsys.readouterr().out


def test_a_run_is_the_same_whatever_the_folder_of_its_weights(toy, tmp_path):
    other = ("--model.policy.init_args.weights", str(tiny_model_folder(tmp_path / "copy")))
    fit(["--config", toy, "--run", "a", *ONE_ITERATION])
    fit(["--config", toy, "--run", "b", *ONE_ITERATION, *other])
    first, second = (json.loads(Path(name, "summary.json").read_text()) for name in "ab")
    assert first.pop("config") != second.pop("config")  # it names the folder
    assert first == second
    assert evaluate(["--config", toy, "--ckpt_path", "b/checkpoints/rl/last.ckpt"])["policy"].n == 4


@pytest.mark.slow
def test_two_processes_share_one_folder_and_every_episode_is_in_it(toy):
    args = ["--config", toy, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "2"]
    args += ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logged"]
    done = run("lit_agents.fit", *args, "--data.schedule.tasks", "4", seconds=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [p.name for p in Path("runs").iterdir()] == ["toy-1"]
    assert done.stdout.count("run folder: runs/toy-1") == 2 and done.stdout.count("rl 1/2") == 1
    episodes = [json.loads(line) for line in Path("runs/toy-1/episodes.jsonl").read_text().splitlines()]
    count = {phase: sum(e["phase"] == phase for e in episodes) for phase in ("sft", "rl", "validation", "test/rl")}
    assert count == {"sft": 16, "rl": 2 * 4 * 4, "validation": 4, "test/rl": 4}
    tasks = [e["task"]["id"] for e in episodes if e["phase"] == "rl" and e["iteration"] == 1]
    assert len(set(tasks)) == 4
    with Path("runs/toy-1/metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "rl"]
    assert [row["rollout/n"] for row in rows] == ["16.0", "16.0"]
    (path,) = [p for p in Path("logged").rglob("metrics.csv") if "validation/success" in p.read_text()]
    with path.open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row["train/loss"]][-len(rows) :]
    for name in ("train/loss", "train/entropy", "rollout/return"):  # of all processes, not of the first one
        assert [float(row[name]) for row in logged] == pytest.approx([float(row[name]) for row in rows], rel=1e-5)
    ledger = json.loads(Path("runs/toy-1/ledger.json").read_text())
    assert (ledger["demonstrations"], ledger["episodes"]) == (16, 32)
    found = audit(Path("runs/toy-1"), again=0)
    assert found.findings.faults == [] and found.findings.checked["advantages computed again"] > 0


def test_processes_started_from_outside_need_a_folder_by_name(toy):
    args = ["--config", toy, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    elastic = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    done = run("lit_agents.fit", *args, **elastic, LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="29511")
    assert done.returncode == 2 and done.stderr.startswith("error: --run: is not given")
