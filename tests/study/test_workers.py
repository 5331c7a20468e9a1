"""Trials in threads beside each other."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from lit_agents.errors import BadInput
from lit_agents.run.plan import RunPlan, refuse_another_start
from lit_agents.study import launcher as made_runs
from lit_agents.study import storage
from lit_agents.study.command_line import resolve, stopping
from lit_agents.study.config import Study
from lit_agents.study.config_merge import Settings
from lit_agents.study.factors import Factor, read_settings
from lit_agents.study.launcher import Done, Resolved, RunFailed, Runs
from lit_agents.study.memory_room import Room
from lit_agents.study.runner import Search
from lit_agents.study.study_json import TRIALS, write_trials

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "base.yaml").write_text("name: base\n")
    return Study("s", [str(tmp_path / "base.yaml")], {"split": Factor(flag="a", values=[0.0, 0.5])})


def search(study: Study, home: Path, resolved: Any) -> Search:
    return Search(study, Runs(home, resolved, Room(2)), lambda _: None, lambda _: None)


def test_what_a_run_would_be_is_found_out_without_leaving_the_working_folder(tmp_path: Path, monkeypatch):
    """It is one for all threads: who looks for ``studies/x/journal.log`` beside that one would not find it."""
    left: list[str] = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(os, "chdir", left.append)
    config = read_settings("conf/textworld/quickstart.yaml")
    assert Runs(tmp_path, resolve, Room(1)).resolved(config).stages == ("base", "sft", "rl")
    assert not left


def test_a_trial_whose_end_cannot_be_written_ends_the_study_with_an_error(study: Study, tmp_path: Path, monkeypatch):
    trials = storage.opened(study, tmp_path, None)

    written = trials._storage.set_trial_state_values

    def lost(*args: Any, **named: Any) -> bool:
        if threading.current_thread() is threading.main_thread():
            return written(*args, **named)
        raise FileNotFoundError("journal.log")

    def refused(_: Sequence[str]) -> Resolved:
        raise OSError("no")

    monkeypatch.setattr(trials._storage, "set_trial_state_values", lost)

    with pytest.raises(BadInput, match=r"results could not be written"):
        search(study, tmp_path, refused).go(trials, 2)
    assert {trial.state for trial in trials.get_trials()} == {TrialState.FAIL}


def test_an_error_nobody_expects_is_in_the_trials_reason_with_its_place(study: Study, tmp_path: Path):
    trials = storage.opened(study, tmp_path, None)

    def broken(_: Sequence[str]) -> Resolved:
        raise KeyError("a fault of ours")

    search(study, tmp_path, broken).go(trials, 2)
    reasons = [trial.user_attrs["error"] for trial in trials.get_trials()]
    assert len(reasons) == 2 and all("a fault of ours" in reason and "in broken" in reason for reason in reasons)


def test_a_word_of_the_scheduler_ends_the_runs_of_all_threads(study: Study, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(
        made_runs,
        "LAUNCH",
        f"import pathlib, os, time\npathlib.Path('{tmp_path}', str(os.getpid())).touch()\ntime.sleep(300)",
    )
    monkeypatch.setattr(made_runs, "POLL", 0.1)
    trials = storage.opened(study, tmp_path, None)

    def resolved(arguments: Sequence[str]) -> Resolved:
        return Resolved(
            {"name": "s", "seed_everything": 1, "a": 0.0 if "0.0" in arguments[1] else 0.5, "sft": None},
            0,
            ("base", "sft"),
        )

    monkeypatch.setattr(Room, "_fits", lambda _: True)

    def tell() -> None:
        while len([path for path in tmp_path.iterdir() if path.name.isdigit()]) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    teller = threading.Thread(target=tell, daemon=True)
    with pytest.raises(KeyboardInterrupt), stopping() as stop:
        teller.start()
        Search(study, Runs(tmp_path, resolved, Room(2), stop), lambda _: None, lambda _: None).go(trials, 2)
    teller.join()
    assert [trial.state for trial in trials.get_trials()] == [TrialState.FAIL] * 2  # given back, to be made again
    pids = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert storage.tried_again(trials) == [0, 1]


class Instant(Runs):
    """Runs that have ended before they began."""

    def resolved(self, config: Any) -> Resolved:
        return Resolved(dict(config), 0, ("base", "rl"))

    def finished(self, config: Any, watch: Any = None) -> Done:
        return Done(Path(str(config["a"])), None, self.resolved(config))


class Found:
    """What such a run has come to."""

    def __init__(self, folder: Path) -> None:
        self._a = float(str(folder))

    def result(self, place: str) -> Any:
        won = round(8 * (self._a if place == "home" else 1 - self._a))
        return type("Result", (), {"by_task": {str(i): (int(i < won), 1) for i in range(8)}})


def searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: Any, trials: int
) -> tuple[optuna.Study, dict[str, Any]]:
    monkeypatch.setattr("lit_agents.study.runner.Record.of", lambda folder, _: Found(folder))
    places = Settings({"elsewhere": {place: {"split": "validation"} for place in ("home", "away")}})
    (tmp_path / "base.yaml").write_text("name: base\n")
    factors = {"split": Factor(flag="a", values=[0.0, 0.25, 0.5])}
    study = Study(
        "s", [f"{tmp_path}/base.yaml"], factors, places, objectives=["home", "away"], sampler=sampler, trials=trials
    )
    found = storage.opened(study, tmp_path, None)
    Search(study, Instant(tmp_path, resolve, Room(1)), lambda _: None, lambda _: None).go(found, 1)
    write_trials(found, study, tmp_path)
    return found, json.loads((tmp_path / TRIALS).read_text())


def test_a_search_with_two_objectives_keeps_what_nothing_beats_and_has_no_gap_where_it_repeats_itself(
    tmp_path: Path, monkeypatch
):
    trials, written = searched(tmp_path, monkeypatch, optuna.samplers.NSGAIISampler(seed=1, population_size=4), 12)
    assert len(trials.trials) == 12 and written["open"] == 0 and len(written["trials"]) == 3
    assert {tuple(trial.values) for trial in trials.best_trials} == {
        (0.0, 1.0),
        (0.25, 0.75),
        (0.5, 0.5),
    }  # home + away = 1
    assert written["objectives"] == ["home", "away"] and written["searched"]


def test_levels_that_collide_fail_their_trial_and_not_the_search(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("name: base\na: 0\n")
    one = Factor(levels={"x": Settings({}), "y": Settings({"a": 1})})
    two = Factor(levels={"x": Settings({}), "y": Settings({"a": 2})})
    places = Settings({"elsewhere": {"home": {"split": "validation"}}})
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = Study(
        "s",
        [f"{tmp_path}/base.yaml"],
        {"one": one, "two": two},
        places,
        objectives=["home"],
        sampler=sampler,
        trials=12,
    )
    trials = storage.opened(study, tmp_path, None)

    def refused(_: Sequence[str]) -> Resolved:
        raise OSError("none is run")

    search(study, tmp_path, refused).go(trials, 1)
    reasons = [trial.user_attrs["error"] for trial in trials.get_trials()]
    assert len(reasons) == 12 and any("another factor overrules it" in reason for reason in reasons)


def test_a_checkpoint_that_was_made_anew_is_another_start(tmp_path: Path):
    path = tmp_path / "run" / "checkpoints" / "sft" / "best.ckpt"
    start = Resolved({"name": "s", "start_from": str(path)}, 0, ("base", "rl"))
    digests = [start.digest]
    path.parent.mkdir(parents=True)
    for content in ("one", "two", "one"):
        path.write_text(content)
        digests.append(start.digest)
    assert len(set(digests)) == 3 and digests[1] == digests[3]


@pytest.mark.parametrize(("demonstrations", "failed", "episodes", "fits"), [
    (60, 0, 0, True), (59, 1, 0, True), (59, 0, 0, False), (61, 0, 0, False), (60, 0, 4, False),
])  # fmt: skip
def test_a_start_that_lost_a_demonstration_is_the_one_that_was_paid_for(
    demonstrations: int, failed: int, episodes: int, fits: bool
):
    plan = RunPlan(torch.device("cpu"), None, 60, 1, None)
    spent = {"demonstrations": demonstrations, "failed_episodes": failed, "episodes": episodes, "games": 0}
    if fits:
        refuse_another_start(plan, spent)
    else:
        with pytest.raises(BadInput, match="the budget buys 60"):
            refuse_another_start(plan, spent)


def test_a_shared_stage_that_was_begun_for_another_algorithm_goes_on_as_it_was(tmp_path: Path, monkeypatch):
    given: list[Any] = []

    def run(_: Runs, folder: Path, config: Any, watch: Any) -> None:
        given.append(config)
        (folder / "summary.json").write_text('{"success": {"base": {}, "sft": {}}}')

    monkeypatch.setattr(Runs, "_run", run)
    runs = Runs(tmp_path, resolve, Room(1))
    for parent in ("sft", "runs"):
        (tmp_path / parent / "x").mkdir(parents=True)
        (tmp_path / parent / "x" / "config.yaml").write_text("model: first\n")
        runs._made(tmp_path / parent / "x", {"model": "second"}, ("base", "sft"), None)
    assert given == [{"model": "first"}, {"model": "second"}]


def test_a_run_that_was_stopped_before_its_end_is_no_result(tmp_path: Path, monkeypatch):
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "config.yaml").write_text("model: first\n")
    monkeypatch.setattr(Runs, "_run", lambda *_: None)  # with exit code 0, as where a scheduler queued it again
    with pytest.raises(RunFailed, match="x was stopped before its end"):
        Runs(tmp_path, resolve, Room(1))._made(tmp_path / "runs" / "x", {}, ("base", "sft"), None)
