"""Studies to their end, with a tiny model in a toy world."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from lit_agents.errors import BadInput
from lit_agents.study.command_line import parsed, resolve
from lit_agents.study.config import Study
from lit_agents.study.launcher import Runs
from lit_agents.study.memory_room import Room
from lit_agents.study.runner import Search
from lit_agents.tune import main, tune
from tests.report.browser import shown
from tests.study.postgres import postgres

ROOT = Path(__file__).parents[2]
STUDY = """
name: split
base: [toy.yaml]
settings:
  budget: {total: 40, prices: {demonstration: 5}}
  sft: {demonstrations: null, epochs: 2}
  trainer: {max_epochs: null, check_val_every_n_epoch: 1}
  elsewhere: {longer: {tasks: r3-w2, turns: 3}, home: {split: validation}}
factors:
  split: {flag: budget.sft_share, values: [0.5, 1.0]}
"""


@pytest.fixture
def study(toy: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the runs: their model is too small for more
    Path("study.yaml").write_text(STUDY)
    return "study.yaml"


TRIALS = """
import json, sys, optuna
rows = optuna.load_study(study_name="split", storage=sys.argv[1]).trials
attributes = [trial.user_attrs for trial in rows]
print(json.dumps([
    {"state": t.state.name, "split": t.params.get("split"), "owner": a.get("owner"), "surplus": "surplus" in a}
    for t, a in zip(rows, attributes)
]))
"""
"""In a process of its own: Optuna leaves connections open."""


def sweeps() -> list[Path]:
    return sorted((ROOT / "sweeps").glob("*.yaml"))


def every_level_once(study: Study) -> list[dict[str, object]]:
    """Settings in which every level of every factor occurs."""
    chosen: list[dict[str, object]] = []
    for setting in study.combinations():
        if any(all(setting[name] != other[name] for other in chosen) for name in setting):
            chosen.append(dict(setting))
    return chosen


@pytest.mark.slow
@pytest.mark.parallel
@pytest.mark.parametrize("path", sweeps(), ids=lambda path: path.stem)
def test_every_setting_of_a_shipped_study_is_a_configuration(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    found, _ = parsed(["--config", str(path)])
    runs = Runs(tmp_path, resolve, Room(1))
    search = Search(found, runs, print, lambda _: None)
    if found.sampler is None:
        assert search.check() == len(list(found.combinations())) > 1
        for setting in every_level_once(found):
            config = runs.resolved(found.configuration(setting, found.seeds[0])).config
            parts = (config["data"]["reward"] or {}).get("init_args", {}).get("parts", [])
            costs = {
                p["reward"]["class_path"].rpartition(".")[2]: p["reward"].get("init_args", {}).get("cost", 0)
                for p in parts
            }
            if "UnfinishedAction" in costs:  # or endless talk would be a way out
                assert (
                    costs["UnfinishedAction"]
                    >= costs.get("InvalidCommand", 0) * config["data"]["limits"]["turns"] - 1e-9
                )
    else:
        trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
        setting = {name: factor.suggested(trial, name) for name, factor in found.factors.items()}
        assert runs.resolved(found.configuration(setting, found.seeds[0])).stages == ("base", "sft", "rl")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_tries_every_setting_once_and_shares_supervised_stages(study: str, capsys: pytest.CaptureFixture[str]):
    ppo = yaml.safe_load(Path("toy.yaml").read_text())["model"] | {"class_path": "lit_agents.algorithm.ppo.PPO"}
    ppo["init_args"]["critic_lr"] = 1.0e-3
    factors = {"algorithm": {"levels": {"grpo": {}, "ppo": {"model": ppo}}}}
    given = yaml.safe_load(STUDY)
    given |= {
        "factors": {"split": {"flag": "budget.sft_share", "values": [0.5]}, **factors},
        "objectives": ["test", "longer"],
    }
    Path("both.yaml").write_text(yaml.safe_dump(given))
    trials = tune(["--config", "both.yaml", "--folder", "s"])
    assert sorted(t.params["algorithm"] for t in trials.trials) == ["grpo", "ppo"] and all(
        t.values for t in trials.trials
    )
    assert (
        len(list(Path("s/sft").glob("*/summary.json"))) == 1 and len(list(Path("s/runs").glob("*/summary.json"))) == 2
    )
    for trial in trials.trials:
        (run,) = trial.user_attrs["runs"]
        ledger = json.loads(Path(run["folder"], "ledger.json").read_text())
        assert ledger["budget"] == {"total": 40, "sft": 20, "rl": 20 - 20 % 4, "remainder": 0}
        summary = json.loads(Path(run["folder"], "summary.json").read_text())
        assert trial.values == [summary["success"]["rl"]["rate"], summary["elsewhere"]["rl"]["longer"]["rate"]]
        written = yaml.safe_load(Path(run["folder"], "config.yaml").read_text())
        assert written["model"]["class_path"].lower().endswith(trial.params["algorithm"])
        assert run["config"]["budget"]["sft_share"] == written["budget"]["sft_share"] == trial.params["split"]
    stored = json.loads(Path("s/study.json").read_text())
    assert [row["state"] for row in stored["trials"]] == ["COMPLETE", "COMPLETE"]
    levels = json.loads(Path("s/report/report.json").read_text())["parts"][0]["tables"]["success_longer"]["rows"]
    by_label = {f"algorithm {t.params['algorithm']}, split {t.params['split']}": t.values[1] for t in trials.trials}
    assert {row[0]: row[3]["mean"] for row in levels} == by_label
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in Path("s").rglob("summary.json")}
    again = tune(["--config", "both.yaml", "--folder", "s"])  # nothing is left to do
    assert len(again.trials) == 2 and {p: p.stat().st_mtime_ns for p in Path("s").rglob("summary.json")} == before
    assert "grpo" in capsys.readouterr().out
    seen = shown(Path("s/report/report.html"))
    assert len(seen["tables"]["split-success_test"]) == 3 and len(seen["pictures"]) == 3 and seen["wide"] == 0
    assert seen["chats"] and not seen["gaps"]
    Path("both.yaml").write_text(yaml.safe_dump(given | {"objectives": ["test"]}))
    with pytest.raises(BadInput, match="holds a study called split whose"):
        tune(["--config", "both.yaml", "--folder", "s"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_chooses_on_validation_and_gives_up_what_falls_behind(study: str):
    given = yaml.safe_load(STUDY)
    rate = {"flag": "model.init_args.optimizer.init_args.lr", "low": 1.0e-4, "high": 1.0e-2, "log": True}
    given |= {"factors": {"rate": rate}, "objectives": ["home"], "trials": 1, "seeds": [1, 2]}
    given["settings"]["budget"] |= {"total": 60, "sft_share": 0.4}
    given["sampler"] = {"class_path": "optuna.samplers.TPESampler", "init_args": {"seed": 1}}
    threshold = {"class_path": "optuna.pruners.ThresholdPruner", "init_args": {"lower": 1.1}}
    Path("search.yaml").write_text(yaml.safe_dump(given))
    trials = tune(["--config", "search.yaml", "--folder", "s", "--storage", "sqlite:///s.db"])
    assert [t.state.name for t in trials.trials] == ["COMPLETE"]
    first, second = trials.trials[0].user_attrs["runs"]
    assert [run["config"]["seed_everything"] for run in (first, second)] == [1, 2]
    summaries = [json.loads(Path(run["folder"], "summary.json").read_text()) for run in (first, second)]
    rates = [summary["elsewhere"]["rl"]["home"]["rate"] for summary in summaries]
    assert trials.trials[0].value == pytest.approx(sum(rates) / 2)
    assert first["config"]["model"]["init_args"]["optimizer"]["init_args"]["lr"] == trials.trials[0].params["rate"]
    Path("prune.yaml").write_text(yaml.safe_dump(given | {"name": "pruned", "trials": 1, "pruner": threshold}))
    (trial,) = tune(["--config", "prune.yaml", "--folder", "p"]).trials
    assert trial.state.name == "PRUNED"
    assert (
        min(trial.intermediate_values) == 3
    )  # 4 demonstrations at 5 and the first 4 episodes: 24 of 60, in parts of 7.5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_study_goes_on_and_makes_the_interrupted_trial_again(study: str):
    command = [sys.executable, "-m", "lit_agents.tune", "--config", study, "--folder", "s"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(Path("s").glob("sft/*/checkpoints/sft/last.ckpt")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    mine, until = ["pgrep", "-f", f"{Path('s').resolve()}/|--run s/"], time.monotonic() + 30
    while subprocess.run(mine, stdout=subprocess.DEVNULL, check=False).returncode == 0:
        assert time.monotonic() < until, "a run did not end with the study that started it"
        time.sleep(0.1)
    assert main(command[3:]) == 0
    trials = optuna.load_study(
        study_name="split",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("s/journal.log")),
    )
    (failed,) = [t for t in trials.trials if t.state.name == "FAIL"]  # the grid's order is a random one
    made = {t.number: t.params["split"] for t in trials.trials if t.state.name == "COMPLETE"}
    assert sorted(made.values()) == [0.5, 1.0] and trials.trials[failed.number + 1].params == failed.params
    assert [row["number"] for row in json.loads(Path("s/study.json").read_text())["trials"]] == sorted(made)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_share_one_study_on_a_server(study: str):
    Path(study).write_text(STUDY.replace("[0.5, 1.0]", "[0.5, 0.6, 0.7, 1.0]"))
    with postgres() as url:
        command = [sys.executable, "-m", "lit_agents.tune", "--config", study, "--folder", "s", "--storage", url]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        workers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [worker.communicate(timeout=800)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0]
        stored = subprocess.run([sys.executable, "-c", TRIALS, url], env=environment, check=True, capture_output=True)
    trials = json.loads(stored.stdout)
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    assert sorted(trial["split"] for trial in complete) == [0.5, 0.6, 0.7, 1.0]
    assert len({trial["owner"] for trial in complete}) == 2  # both had a part
    assert all(trial["surplus"] for trial in trials if trial not in complete)
    assert sum(text.count(": split ") for text in said) == 4  # a line for each, by who made it
    stored = json.loads(Path("s/study.json").read_text())
    assert sorted(row["setting"]["split"] for row in stored["trials"]) == [0.5, 0.6, 0.7, 1.0] and not stored["open"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_runs_at_once_are_the_runs_of_one_after_the_other(study: str):
    def outcomes(folder: str) -> dict[str, object]:
        summaries = {p.parent.name: json.loads(p.read_text()) for p in Path(folder).glob("runs/*/summary.json")}
        return {name: [r["by_task"] for r in summary["success"].values()] for name, summary in summaries.items()}

    tune(["--config", study, "--folder", "one"])
    tune(["--config", study, "--folder", "both", "--jobs", "2"])
    assert outcomes("one") == outcomes("both") and len(outcomes("one")) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_fails_is_no_zero_and_can_be_made_again(study: str, monkeypatch: pytest.MonkeyPatch, capsys):
    Path("bad.yaml").write_text(STUDY.replace("values: [0.5, 1.0]", "values: [0.5]"))
    good = Runs._run

    def broken(self: Runs, folder: Path, config, watch) -> None:
        good(
            self,
            folder,
            {**config, "data": {**config["data"], "limits": {**config["data"]["limits"], "turns": 0}}},
            watch,
        )

    monkeypatch.setattr(Runs, "_run", broken)
    assert main(["--config", "bad.yaml", "--folder", "s"]) == 2
    said = capsys.readouterr()
    assert "1 trials failed" in said.err and "data.limits.turns" in said.err and "0.000" not in said.out
    monkeypatch.setattr(Runs, "_run", good)
    assert main(["--config", "bad.yaml", "--folder", "s"]) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (STUDY.replace("budget.sft_share", "budget.sft_shar"), "budget.sft_shar"),
        (STUDY.replace("toy.yaml", "nowhere.yaml"), "nowhere.yaml: it cannot be read"),
        (STUDY.replace("total: 40", "total: 6"), "budget"),
        (STUDY.replace("factors:", "factor:"), "factor"),
        (STUDY + "objectives: [abroad]\n", "abroad"),
        (STUDY + "sampler: {class_path: optuna.samplers.NoSampler}\n", "sampler"),
    ],
)
def test_a_study_that_cannot_be_is_refused_before_anything_runs(study: str, text: str, words: str):
    Path(study).write_text(text)
    with pytest.raises(BadInput, match=words):
        tune(["--config", study, "--folder", "s"])
    assert not list(Path().rglob("summary.json"))
