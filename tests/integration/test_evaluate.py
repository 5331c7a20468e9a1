"""What a reported rate comes with, and what is not compared with what."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lit_agents.evaluate import evaluate, main
from lit_agents.evaluation.result import Result
from lit_agents.evaluation.stats.intervals import wilson
from lit_agents.fit import fit
from tests.integration.conftest import ONE_ITERATION


@pytest.fixture
def trained(toy: str) -> tuple[str, ...]:
    """A short run that has learnt something, and how to evaluate in its world."""
    fit(["--config", toy, "--run", "run", "--sft.epochs", "14", *ONE_ITERATION])
    return "--config", toy, "--data.test_tasks", "16"


RL, SFT = "run/checkpoints/rl/best.ckpt", "run/checkpoints/sft/last.ckpt"


def test_every_rate_carries_its_n_interval_and_conditions(trained, capsys):
    assert main([*trained, "--ckpt_path", RL, "--output", "rl.json"]) == 0
    for content in json.loads(Path("rl.json").read_text())["success"].values():
        result = Result.from_json(content)
        assert result.n == 16 and (result.low, result.high) == pytest.approx(wilson(round(result.rate * 16), 16))
        assert sum(n for _, n in result.by_task.values()) == 16
        assert sum(c for c, _ in result.by_task.values()) == round(result.rate * 16)
        conditions = result.conditions
        assert (conditions.split, conditions.turn_limit, conditions.context_limit) == ("test", 2, 160)
        assert conditions.sampling == {"temperature": 1.0, "max_tokens": 6, "top_p": 1.0, "top_k": 0}
        environment = dict(conditions.environment)
        assert environment.pop("task_files") and environment == {
            "class": "lit_agents.environment.toy.EchoWorld", "commands": "one word", "admissible": "hidden", "tasks": "16",
        }  # fmt: skip


def test_several_samples_give_avg_at_k_and_pass_at_k(trained, capsys):
    one = evaluate([*trained, "--ckpt_path", RL])["policy"]
    four = evaluate([*trained, "--ckpt_path", RL, "--samples", "4"])["policy"]
    assert four.n == 64 and four.samples == 4 and len(four.by_task) == 16
    for task, (won, _) in one.by_task.items():  # the first sample is the one that is always played
        assert four.by_task[task][0] >= won
    rates = four.pass_at()
    assert list(rates) == [1, 2, 4] and rates[1][0] == pytest.approx(four.rate)
    by_hand = [1 - math.comb(4 - c, 2) / 6 for c, _ in four.by_task.values()]
    assert rates[2][0] == pytest.approx(sum(by_hand) / 16)
    assert rates[4][0] == pytest.approx(sum(c > 0 for c, _ in four.by_task.values()) / 16)
    assert f"policy, 16 tasks: pass@1 {four.rate:.3f}" in capsys.readouterr().out
    assert 0 < four.rate < 1


def test_two_checkpoints_are_compared_on_the_same_tasks(trained, capsys):
    results = evaluate([*trained, "--ckpt_path", RL, "--against", SFT, "--samples", "2", "--output", "both.json"])
    alone = evaluate([*trained, "--ckpt_path", SFT, "--samples", "2"])["policy"]
    assert results["against"] == alone
    content = json.loads(Path("both.json").read_text())
    gains = [results["policy"].by_task[t][0] / 2 - won / 2 for t, (won, _) in alone.by_task.items()]
    assert content["paired"]["difference"] == pytest.approx(sum(gains) / 16)
    assert content["paired"]["better"] == sum(g > 0 for g in gains) and content["different"] == []
    assert "policy - against, paired by task: " in capsys.readouterr().out


def test_what_a_configuration_begins_with_is_what_is_measured(trained, capsys):
    given = evaluate([*trained, "--ckpt_path", SFT])["policy"]
    assert evaluate([*trained, "--start_from", SFT])["policy"] == given
    assert f"policy: {SFT}" in capsys.readouterr().out
    assert evaluate(list(trained))["policy"] != given
    capsys.readouterr()
    evaluate([*trained, "--start_from", "deleted since.ckpt", "--ckpt_path", RL])
    assert f"policy: {RL}" in capsys.readouterr().out


def test_numbers_of_other_conditions_are_compared_only_if_that_is_asked_for(trained, capsys):
    assert main([*trained, "--ckpt_path", SFT, "--output", "sft.json"]) == 0
    same = [*trained, "--ckpt_path", RL, "--against", "sft.json"]
    assert main(same) == 0
    for change, name in (
        (["--data.limits.turns", "3"], "turn_limit is 2, not 3"),
        (["--data.limits.window", '{"turns": 1, "keep": 1}'], "window.turns is None, not 1"),
        (["--data.evaluation.temperature", "0.5"], "sampling.temperature is 1.0, not 0.5"),
        (["--data.test_tasks", "8"], "environment.task_files is "),
        (["--data.tasks", "r2-w3"], "tasks is r2-w2, not r2-w3"),
        (
            ["--data.environment", "tests.integration.flaky.Mute"],
            "environment.class is lit_agents.environment.toy.EchoWorld",
        ),
    ):
        capsys.readouterr()
        assert main([*same, *change]) == 2
        error = capsys.readouterr().err
        assert (
            error.startswith("error: --against sft.json: its ") and name in error and "--allow_different true" in error
        )
    assert main([*same, "--data.test_tasks", "8", "--allow_different", "true"]) == 0
    out = capsys.readouterr().out
    assert "of 8 tasks" in out and "measured under other conditions: against's environment.task_files is" in out
    assert main([*same, "--seed_everything", "7"]) == 0  # another seed is another draw of the same thing


def test_an_expert_that_breaks_is_in_the_table_with_its_failures_and_one_that_is_not_there_is_not(toy: str, capsys):
    stumped, mute = (f"tests.integration.flaky.{name}" for name in ("Stumped", "Mute"))
    flags = ["--config", toy, "--sft", "null", "--data.test_tasks", "4", "--data.environment"]
    assert set(evaluate([*flags, mute])) == {"random", "policy"}
    assert "broke" not in capsys.readouterr().out
    results = evaluate([*flags, stumped])
    assert (results["expert"].n, results["expert"].failures) == (0, 12) and set(results) == {
        "random",
        "policy",
        "expert",
    }
    out = capsys.readouterr().out
    assert (
        "broke, not in n: expert 12" in out
        and "an error of expert: " in out
        and "what it should read is not there" in out
    )


@pytest.mark.parametrize(("sound", "counted"), [(0, "12 of 12"), (1, "9 of 10"), (3, "")])
def test_a_policy_whose_world_broke_has_no_number_and_one_with_a_few_failures_has(
    toy: str, capsys, sound: int, counted: str
):
    flags = ["--config", toy, "--sft", "null", "--data.test_tasks", "4", "--output", "numbers.json"]
    flags += [
        "--data.environment",
        "tests.integration.flaky.Broken",
        "--data.environment.folder",
        ".",
        "--data.environment.sound",
        str(sound),
    ]
    flags += ["--data.schedule.max_failures", "0.5"]
    assert main(flags) == (2 if counted else 0)
    out, error = capsys.readouterr()
    assert f"broke, not in n: random {12 - 3 * sound}, policy {12 - 3 * sound}" in out
    assert not counted or (f"{counted} episodes of policy failed" in error and "then measure again; or raise" in error)
    assert Path("numbers.json").exists() != bool(counted)


def test_a_row_without_a_number_is_null_in_the_file(toy: str):
    flags = ["--config", toy, "--sft", "null", "--data.test_tasks", "4", "--output", "numbers.json"]
    evaluate([*flags, "--data.environment", "tests.integration.flaky.Stumped"])
    stored = json.loads(Path("numbers.json").read_text(), parse_constant=pytest.fail)["success"]["expert"]
    assert stored["rate"] is None and math.isnan(Result.from_json(stored).rate)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--output", "."], "--output .: no such file can be written."),
        (["--samples", "2", "--data.evaluation.temperature", "0"], "--samples 2: with data.evaluation.temperature=0"),
        (["--samples", "0"], "samples"),
        (["--against", "nowhere.json"], "--against nowhere.json: it cannot be read"),
        (["--against", "toy.yaml"], "--against toy.yaml: cannot be read as plain tensors"),
        (["--against", "nowhere.ckpt"], "--against nowhere.ckpt: there is no such file"),
        (["--start_from", "nowhere.ckpt"], "--start_from nowhere.ckpt: there is no such file"),
        (["--start_from", "toy.yaml"], "--start_from toy.yaml: cannot be read as plain tensors"),
        (["--allow_different", "true"], "--allow_different: there are no earlier numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused(toy: str, capsys, args: list[str], reason: str):
    assert main(["--config", toy, *args]) == 2
    assert reason in capsys.readouterr().err
