"""A run goes on under the conditions it began under; others are refused by name, or marked."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lit_agents.environment.toy import EchoWorld
from lit_agents.fit import fit, main
from lit_agents.report.load import read
from lit_agents.run.folder import Mark
from lit_agents.run.resuming import Change, config_differences
from tests.integration.conftest import ONE_ITERATION

LAST = ("--run", "run", "--ckpt_path", "last")
OTHERS = [
    ("data.tasks", "r2-w2", "r1-w2"), ("seed_everything", 1, 2), ("data.sampling.temperature", 1.0, 0.7),
    ("data.evaluation.temperature", 1.0, 0.5), ("data.limits.turns", 2, 1), ("data.limits.context", 160, 170),
    ("data.schedule.group_size", 4, 2), ("data.train_tasks", 8, 9), ("model.init_args.warmup", 2, 3),
    ("model.init_args.optimizer.init_args.lr", 0.001, 0.01), ("sft.epochs", 6, 7), ("trainer.gradient_clip_val", None, 1.0),
    ("trainer.precision", None, "bf16-mixed"), ("trainer.check_val_every_n_epoch", 1, 2),
]  # fmt: skip


def rows(run: str = "run") -> list[dict[str, str]]:
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def content(run: str = "run") -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(run).rglob("*") if path.is_file()}


def test_another_condition_is_refused_by_its_name_and_nothing_is_lost(toy, capfd, monkeypatch):
    fit(["--config", toy, "--run", "run", *ONE_ITERATION])
    before = content()
    fit_again = ["--config", toy, *ONE_ITERATION, "--trainer.max_epochs", "2", *LAST]
    for name, was, now in OTHERS:
        capfd.readouterr()
        assert main([*fit_again, f"--{name}", str(now)]) == 2, name
        error = capfd.readouterr().err
        assert "--ckpt_path: the run was begun under other conditions: " in error
        assert f"{name} was {was}, is {now}" in error and "--allow_different true" in error
    assert main([*fit_again, "--data.reward", "null"]) == 2
    assert "data.reward" in capfd.readouterr().err
    # one configuration, but another world: its files, or its version
    monkeypatch.setattr(EchoWorld, "fingerprint", lambda _: {"version": "2"}, raising=False)
    assert main(fit_again) == 2
    assert "test: environment.version was nothing, is 2" in capfd.readouterr().err
    assert content() == before


def test_a_run_may_be_longer_and_be_computed_in_other_parts(toy):
    fit(["--config", toy, "--run", "run", *ONE_ITERATION])
    free = ["--trainer.max_epochs", "2", "--data.schedule.micro_batch_tokens", "320", "--data.limits.concurrent", "4"]
    free += ["--name", "other", "--watch.entropy", "0.001", "--keep_weights", "1"]
    fit(["--config", toy, *ONE_ITERATION, *free, *LAST])
    assert len(rows()) == 8 and "changed" not in rows()[0]
    assert json.loads(Path("run/summary.json").read_text())["changed"] == []
    assert Path("run/config.1.yaml").exists()


def test_what_was_allowed_is_marked_in_every_row_and_never_averaged_with_other_runs(toy, capfd):
    fit(["--config", toy, "--run", "run", *ONE_ITERATION])
    cooler = ["--data.sampling.temperature", "0.7", "--trainer.max_epochs", "2"]
    fit(["--config", toy, *ONE_ITERATION, *cooler, *LAST, "--allow_different", "true"])
    out = capfd.readouterr().out
    sentence = "resumed under other conditions after rl, iteration 1: data.sampling.temperature 1.0 -> 0.7"
    assert out.count(sentence) == 2  # when it goes on, and below the table
    assert [row["changed"] for row in rows()] == [""] * 7 + ["1"]
    (change,) = json.loads(Path("run/summary.json").read_text())["changed"]
    assert change["sentence"] == sentence and change["written"]["rows"] == 7
    assert change["different"] == {"data.sampling.temperature": [1.0, 0.7]}
    assert change["measured"] == ["base", "sft", "rl"]
    # the same conditions again are no new change; the mark stays
    fit(["--config", toy, *ONE_ITERATION, *cooler, "--trainer.max_epochs", "3", *LAST])
    assert [row["changed"] for row in rows()] == [""] * 7 + ["1", "1"]
    fit(["--config", toy, *ONE_ITERATION, *cooler, "--trainer.max_epochs", "3", "--run", "pure"])
    (material,) = read([Path("run"), Path("pure")])
    assert sorted(len(setting.records) for setting in material.settings) == [1, 1]
    assert any(sentence in gap for gap in material.gaps)
    # who goes back to before the change has rows of before it no longer
    fit(["--config", toy, *ONE_ITERATION, *cooler, "--run", "run", "--ckpt_path", "run/checkpoints/sft/last.ckpt"])
    (change,) = json.loads(Path("run/summary.json").read_text())["changed"]
    assert change["after"] == "sft, iteration 6" and change["measured"] == ["base", "sft"]
    assert [row["changed"] for row in rows()] == [""] * 6 + ["1", "1"]


def config(**changes: object) -> str:
    values = {
        "anneal": False,
        "epochs": 3,
        "minibatches": 1,
        "devices": 1,
        "start": "a/runs/x/checkpoints/sft/last.ckpt",
    }
    values |= changes
    return json.dumps(
        {
            "model": {"init_args": {"anneal": values["anneal"]}},
            "data": {"schedule": {"minibatches": values["minibatches"]}},
            "trainer": {"max_epochs": values["epochs"], "devices": values["devices"]},
            "start_from": values["start"],
        }
    )


@pytest.mark.parametrize(
    ("same", "changes", "named"),
    [
        ({}, {"epochs": 5, "devices": 2, "start": "b/runs/x/checkpoints/sft/last.ckpt"}, []),
        ({"anneal": True}, {"epochs": 5}, ["trainer.max_epochs"]),
        ({"minibatches": 2}, {"devices": 2}, ["trainer.devices"]),
        ({}, {"start": "a/runs/y/checkpoints/sft/last.ckpt"}, ["start_from"]),
        ({}, {"start": None}, ["start_from"]),
    ],
)
def test_what_is_free_under_a_condition(same, changes, named: list[str]):
    assert list(config_differences(config(**same), config(**same, **changes))) == named


def test_a_change_of_which_nothing_from_before_is_kept_is_none():
    change = Change(Mark(3, 10), "rl, iteration 1", ("base",), {"a": (1, 2)})
    assert change.cut(Mark(), "the first test", []) is None
    assert change.cut(Mark(5, 20), "rl, iteration 3", ["base"]) == change
    assert Change.from_json(change.as_json()).as_json() == change.as_json()
