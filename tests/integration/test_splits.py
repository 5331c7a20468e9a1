"""No run trains, chooses and tests on one task: refused before a model is loaded, by what the tasks hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lit_agents import evaluate as evaluate_command
from lit_agents.fit import fit
from lit_agents.fit import main as fit_main
from lit_agents.policy.causal_lm import CausalLMPolicy
from tests.environment.split_worlds import Renames
from tests.integration.conftest import ONE_ITERATION

WORLDS = "tests.environment.split_worlds"


@pytest.fixture
def refused(toy: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Runs a command that must be refused without loading a model; what it says."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    def run(main, *args: str) -> str:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(CausalLMPolicy, "load", load)
            assert main(["--config", toy, *args]) == 2
        return capfd.readouterr().err

    return run


def world(name: str) -> list[str]:
    args = ["--data.environment", f"{WORLDS}.{name}", "--data.reward", "lit_agents.reward.outcome.Outcome"]
    if name == "SameFiles":
        Path("files").mkdir(exist_ok=True)
        args += ["--data.environment.init_args.folder", "files"]
    return args


@pytest.mark.parametrize("name", ["IgnoresSplit", "Renames", "SameFiles"])
def test_training_on_test_tasks_is_refused_whatever_they_are_called(refused, name):
    said = refused(fit_main, *world(name), "--sft", "null")
    assert said.startswith("error: data.environment: splits train and validation share 4 tasks, e.g. ")
    assert not Path("runs").exists()
    said = refused(evaluate_command.main, *world(name))
    assert said.startswith("error: data.environment: splits test and train share 4 tasks, e.g. ")


def test_a_split_with_fewer_tasks_is_refused_by_how_many_there_are(refused):
    for main in (fit_main, evaluate_command.main):
        said = refused(main, *world("Few"), "--data.test_tasks", "4", "--data.train_tasks", "3", "--sft", "null")
        assert "tasks: r2-w2 has 3 tasks for " in said and ", not 4. Ask for fewer." in said
    assert said.startswith("error: data.test_tasks: r2-w2 has 3 tasks for test, not 4.")


def test_a_place_elsewhere_whose_tasks_are_trained_on_is_refused(refused):
    place = ("--elsewhere", "{other: {tasks: r3-w2, split: test}}")
    said = refused(fit_main, "--data.environment", "tests.integration.flaky.TrainsOnAnotherTest", *place)
    assert said.startswith("error: data.environment: splits train and test share 4 tasks")


def test_a_world_whose_tasks_only_their_first_observation_tells_apart_is_trained_in(toy):
    run = fit(["--config", toy, *world("Numbers"), "--sft", "null", "--run", "run", *ONE_ITERATION])
    assert run.results.keys() == {"base", "rl"}


def test_what_a_checkpoint_was_trained_on_is_no_test_of_it(toy, refused):
    fit(["--config", toy, "--run", "first", "--trainer.max_epochs", "0"])
    start = "first/checkpoints/sft/last.ckpt"
    seen = torch.load(start, weights_only=True)["RolloutDataModule"]["seen"]
    assert {split: len(names) for split, names in seen.items()} == {"train": 8, "sft": 16, "validation": 4}
    swapped = ["--data.environment", "tests.integration.flaky.Swapped"]  # tests on what was demonstrated
    commands = [(fit_main, "start_from", ("--sft", "null")), (evaluate_command.main, "ckpt_path", ())]
    for main, flag, others in [*commands, (evaluate_command.main, "start_from", ("--sft", "null"))]:
        said = refused(main, *swapped, *others, f"--{flag}", start)
        assert said.startswith(f"error: {flag}: it was trained on 4 of the 4 test tasks here, e.g. 200001."), said
    held_out = ["--sft", "null", "--start_from", start, "--run", "second", *ONE_ITERATION]
    fit(["--config", toy, *held_out, "--data.train_tasks", "12"])  # on what that run had for training, and more
    later = torch.load("second/checkpoints/rl/last.ckpt", weights_only=True)["RolloutDataModule"]["seen"]
    assert {split: len(names) for split, names in later.items()} == {"train": 12, "sft": 16, "validation": 4}


def test_the_worlds_of_these_tests_rename():
    train, test = (Renames().tasks("n", split, 1)[0] for split in ("train", "test"))
    assert train.id != test.id and Renames().reset(train).observation == Renames().reset(test).observation
