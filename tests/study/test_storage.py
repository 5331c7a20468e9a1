"""Trials of workers that come and go."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lit_agents.errors import BadInput
from lit_agents.study import storage
from lit_agents.study.config import Study
from lit_agents.study.factors import Factor
from lit_agents.study.study_json import latest
from tests.study.postgres import postgres

SPLIT = {"split": [0.0, 0.5]}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "base.yaml").write_text("name: base\n")
    return Study("s", [str(tmp_path / "base.yaml")], {"split": Factor(flag="a", values=SPLIT["split"])})


@pytest.fixture
def trials(study: Study, tmp_path: Path) -> optuna.Study:
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


def test_a_trial_whose_process_is_gone_where_nobody_sees_it_can_be_released(trials: optuna.Study):
    begun(trials).set_user_attr(storage.OWNER, "elsewhere boot numbers 7 1")
    assert storage.tried_again(trials) == [] and storage.under_way(trials) == {0: "elsewhere, process 7"}
    with pytest.raises(BadInput, match=r"--release 5: no trial of that number is under way\. Under way: 0"):
        storage.release(trials, 5)
    storage.release(trials, 0)
    assert storage.under_way(trials) == {} and storage.tried_again(trials) == [0]


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


def begin(study: Study, urls: list[str], home: Path, together: Barrier) -> None:
    for url in urls:
        together.wait(60)
        storage.opened(study, home, url).enqueue_trial({"split": 0.5})


def opened_by(study: Study, home: Path, url: str | None, together: Barrier, answers: Path) -> None:
    together.wait(60)
    try:
        said = str(storage.opened(study, home, url).user_attrs[storage.IDENTITY])
    except BadInput as error:
        said = f"refused: {error}"
    (answers / str(os.getpid())).write_text(said)


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_of_two_studies_of_one_name_that_begin_at_the_same_moment_one_is_refused(study: Study, tmp_path: Path, kind):
    other = replace(study, seeds=[7])
    forked = multiprocessing.get_context("fork")
    for attempt in range(6):
        home, answers = tmp_path / f"home-{attempt}", tmp_path / f"answers-{attempt}"
        home.mkdir()
        answers.mkdir()
        url = None if kind == "journal" else f"sqlite:///{home}/trials.db"
        if url:
            optuna.create_study(storage=url, study_name="tables")  # both find a database that is ready
        together = forked.Barrier(2)
        workers = [forked.Process(target=opened_by, args=(s, home, url, together, answers)) for s in (study, other)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        said = [path.read_text() for path in answers.iterdir()]
        refused = [words for words in said if words.startswith("refused")]
        assert len(said) == 2 and len(refused) == 1 and "holds a study called s" in refused[0]


def test_a_study_whose_creator_died_before_it_said_whose_it_is_can_be_taken(study: Study, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(storage, "NAMED", 0.1)
    storage._study(study, tmp_path, None, load_if_exists=False)
    assert storage.opened(study, tmp_path, None).user_attrs[storage.IDENTITY] == study.identity()


def test_workers_who_meet_an_empty_server_at_the_same_moment_all_get_the_study(study: Study, tmp_path: Path):
    with postgres() as url:
        import psycopg

        urls = [url.removesuffix("postgres") + f"round{number}" for number in range(4)]
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as server:
            for made in urls:
                server.execute(f"CREATE DATABASE {made.rpartition('/')[2]}")  # type: ignore[arg-type]
        forked = multiprocessing.get_context("fork")
        together = forked.Barrier(4)
        workers = [forked.Process(target=begin, args=(study, urls, tmp_path, together)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 4
