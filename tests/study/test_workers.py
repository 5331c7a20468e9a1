"""Trials in threads beside each other."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lit_agents.errors import BadInput
from lit_agents.study import storage
from lit_agents.study.design import Study
from lit_agents.study.factors import Factor, read_settings
from lit_agents.study.room import Room
from lit_agents.study.runs import Resolved, Runs
from lit_agents.study.search import Search
from lit_agents.tune import resolve

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
