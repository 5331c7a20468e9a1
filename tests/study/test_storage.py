"""Trials of workers that come and go."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lit_agents.study import storage
from lit_agents.study.design import Study
from lit_agents.study.factors import Factor
from lit_agents.study.trials import latest

SPLIT = {"split": [0.0, 0.5]}


@pytest.fixture
def trials(tmp_path: Path) -> optuna.Study:
    (tmp_path / "base.yaml").write_text("name: base\n")
    study = Study("s", [str(tmp_path / "base.yaml")], {"split": Factor(flag="a", values=SPLIT["split"])})
    return storage.opened(study, tmp_path, None)


def begun(trials: optuna.Study) -> optuna.Trial:
    trial = trials.ask()
    trial.suggest_categorical("split", SPLIT["split"])
    return trial


def states(trials: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in trials.get_trials(deepcopy=False)]


def test_who_is_stopped_gives_back_his_own_trial_alone(trials: optuna.Study):
    mine, others = begun(trials), begun(trials)
    storage.own(mine)
    others.set_user_attr(storage.OWNER, "another machine 7 1")
    storage.give_back(trials)
    assert states(trials) == [TrialState.FAIL, TrialState.RUNNING]
    assert storage.tried_again(trials) == [0] and storage.waiting(trials) == 1
    again = begun(trials)
    assert again.params == mine.params and [trial.number for trial in latest(trials)] == [1, 2]


def test_a_trial_that_nobody_calls_his_is_tried_again_after_a_while(trials: optuna.Study, monkeypatch):
    begun(trials)
    assert storage.tried_again(trials) == []  # its worker may be about to say so
    monkeypatch.setattr(storage, "UNOWNED", -1)
    assert storage.tried_again(trials) == [0]


def test_a_setting_is_taken_by_the_earlier_of_two_that_are_at_it_or_have_done_it(trials: optuna.Study):
    first, second = begun(trials), begun(trials)
    setting = first.params
    assert second.params != setting and not storage.is_taken(second, second.params)
    third = trials.ask()
    trials.sampler = optuna.samplers.RandomSampler()  # a grid that is told from outside wants to stop a search
    assert storage.is_taken(third, setting) and not storage.is_taken(first, setting)
    trials.tell(first, 0.5)
    assert storage.is_taken(third, setting)
    trials.tell(second, state=TrialState.FAIL)
    assert not storage.is_taken(third, second.params)
