"""Several runs put together, against numbers worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_agents.evaluation.intervals import mean_interval, wilson
from lit_agents.fit import fit
from lit_agents.report import Scores, gain, main


def test_the_interval_of_a_mean_worked_by_hand():
    # mean 2 / 8; squares sum to 4, about the mean to 4 - 8 x .25^2 = 3.5, variance 3.5 / 7; 1.96 x sqrt(.5 / 8) = .49
    mean, low, high = mean_interval([1, 1, 0, -1, 0, 0, 1, 0])
    assert (mean, low, high) == pytest.approx((0.25, 0.25 - 0.49, 0.25 + 0.49))
    assert mean_interval([0.5])[1] == float("-inf")


def written(folder: str, won: dict[str, dict[str, bool | None]], **changed: object) -> str:
    """A run folder with these test episodes; None is one that the environment broke."""
    Path(folder).mkdir()
    sampling = {"temperature": 1.0, "max_tokens": 6, "top_p": 1.0, "top_k": 0}
    conditions = {"tasks": "w", "split": "test", "turn_limit": 2, "context_limit": 9, "sampling": sampling, "seed": 1}
    conditions |= {"environment": "e"} | changed
    summary = {"success": {stage: {"conditions": conditions} for stage in won}}
    Path(folder, "summary.json").write_text(json.dumps(summary))
    lines = [{"phase": "rl", "task": {"id": "a"}, "stop": "won", "rewards": {}}]
    for stage, tasks in won.items():
        for task, win in tasks.items():
            stop = "environment_crash" if win is None else "won" if win else "turn_limit"
            rewards = None if win is None else {}
            lines.append({"phase": f"test/{stage}", "task": {"id": task}, "stop": stop, "rewards": rewards})
    Path(folder, "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def two(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    first = {
        "sft": {"a": False, "b": False, "c": True, "d": True},
        "rl": {"a": True, "b": False, "c": True, "d": False},
    }
    second = {"sft": {"a": False, "b": True, "c": True, "d": None}, "rl": {"a": True, "b": True, "c": True, "d": True}}
    return [written("one", first), written("two", second, seed=2)]


def test_gains_are_paired_by_task_and_broken_episodes_are_left_out(two):
    runs = [Scores.read(Path(name)) for name in two]
    each, mean, low, high = gain(runs, "sft", "rl")
    assert each == pytest.approx([0.0, 1 / 3])  # +1 0 0 -1, and +1 0 0
    # tasks that all runs have: a +1, b 0, c 0; mean 1/3, deviation sqrt(1/3), so 1.96 x sqrt(1/3) / sqrt(3) = .653
    assert (mean, low, high) == pytest.approx((1 / 3, 1 / 3 - 0.65333, 1 / 3 + 0.65333), abs=1e-4)


def test_the_tables_show_levels_and_gains(two, capsys):
    assert main(two) == 0
    out = capsys.readouterr().out
    low, high = wilson(6, 8)
    assert f"0.750 │ 8 │ {low:.3f} - {high:.3f} │ 0.500 1.000" in out  # rl: 2 of 4 and 4 of 4
    assert "+0.333" in out and "+0.000 +0.333" in out


def test_what_was_measured_in_another_way_is_not_put_together(two, capsys):
    written("other", {"sft": {"a": True}, "rl": {"a": True}}, environment="f")
    assert main([*two, "other"]) == 2
    assert "error: other: its environment is f, not e as in one. Report them apart." in capsys.readouterr().err
    written("half", {"sft": {"a": True}})
    assert main([*two, "half"]) == 2 and "it has the stages sft" in capsys.readouterr().err
    assert main(["nowhere"]) == 2 and "cannot be read as a run folder" in capsys.readouterr().err


def test_a_real_run_is_reported(toy, capsys):
    run = fit(["--config", toy])
    capsys.readouterr()
    assert main([str(run.folder.path)]) == 0
    out = capsys.readouterr().out
    assert all(f"│ {stage}" in out for stage in ("base", "sft", "rl", "rl - sft"))
    assert f"{run.results['rl'].rate:.3f}" in out
