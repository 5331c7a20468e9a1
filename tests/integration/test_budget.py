"""Runs that are given a budget, and measured in more places than one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lit_agents.errors import BadInput
from lit_agents.fit import fit

SPEND = ("--sft.demonstrations", "null", "--trainer.max_epochs", "null")
PRICES = ("--budget.prices.demonstration", "5")


def ledger(run: str) -> dict:
    return json.loads(Path(run, "ledger.json").read_text())


def rows(run: str) -> list[dict[str, str]]:
    with Path(run, "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_both_stages_spend_one_budget_and_what_is_left_is_said(toy: str):
    args = ["--config", toy, *SPEND, *PRICES, "--budget.total", "107", "--budget.sft_share", "0.6"]
    args += ["--trainer.check_val_every_n_epoch", "4"]
    fit([*args, "--run", "run"])
    found = ledger("run")
    # by hand: 64.2 units buy 12 demonstrations; 47 are left, which buy 11 groups of 4: five iterations of 2, one of 1
    assert (found["demonstrations"], found["episodes"], found["games"]) == (12, 44, 8)  # of 8 training tasks
    assert found["budget"] == {"total": 107.0, "sft": 60.0, "rl": 44.0, "remainder": 3.0}
    rl = [row for row in rows("run") if row["stage"] == "rl"]
    assert [float(row["rollout/n"]) for row in rl] == [8.0] * 5 + [4.0]
    assert [bool(row["validation/success"]) for row in rl] == [False, False, False, True, False, True]
    fit(["--config", "run/config.yaml", "--run", "again"])
    assert [row.get("train/loss") for row in rows("again")] == [row.get("train/loss") for row in rows("run")]
    assert ledger("again")["budget"] == found["budget"]


@pytest.mark.parametrize(("share", "demonstrations", "episodes"), [(0.0, 0, 24), (1.0, 4, 0)])
def test_a_share_of_nothing_leaves_a_stage_out(toy: str, share: float, demonstrations: int, episodes: int):
    run = fit(
        ["--config", toy, *SPEND, *PRICES, "--budget.total", "24", "--budget.sft_share", str(share), "--run", "r"]
    )
    assert (ledger("r")["demonstrations"], ledger("r")["episodes"]) == (demonstrations, episodes)
    assert list(run.results) == ["base", "rl" if episodes else "sft"]


def test_the_supervised_stage_may_be_another_runs(toy: str):
    args = ["--config", toy, *SPEND, *PRICES, "--budget.total", "100", "--budget.sft_share", "0.6"]
    fit([*args, "--run", "whole"])
    fit(["--config", toy, "--sft.demonstrations", "12", "--trainer.max_epochs", "0", "--run", "sft"])
    fit([*args, "--sft", "null", "--start_from", "sft/checkpoints/sft/last.ckpt", "--run", "rest"])
    assert ledger("rest")["budget"] == ledger("whole")["budget"] == {"total": 100, "sft": 60, "rl": 40, "remainder": 0}
    losses = [[row.get("train/loss") for row in rows(run) if row["stage"] == "rl"] for run in ("whole", "rest")]
    assert losses[0] == losses[1] and len(losses[0]) == 5 and any(losses[0])
    other = [
        "--budget.sft_share",
        "0.4",
        "--sft",
        "null",
        "--start_from",
        "sft/checkpoints/sft/last.ckpt",
        "--run",
        "x",
    ]
    with pytest.raises(
        BadInput, match="start_from: behind it are 12 demonstrations, 0 episodes, 0 games; the budget buys 8"
    ):
        fit([*args, *other])


def test_games_are_paid_for_once_however_often_they_are_played(toy: str):
    prices = ("--budget.prices.episode", "0", "--budget.prices.game", "1", "--trainer.max_epochs", "3")
    args = ["--config", toy, "--sft", "null", "--budget.total", "4", "--budget.sft_share", "0", *prices]
    with pytest.raises(BadInput, match=r"pays for 4 games; data.train_tasks is 8"):
        fit(args)
    fit([*args, "--data.train_tasks", "4", "--run", "run"])
    found = ledger("run")
    assert (found["games"], found["episodes"]) == (4, 24)
    assert found["budget"] == {"total": 4.0, "sft": 0.0, "rl": 4.0, "remainder": 0.0}


SIXTEEN_AND_EIGHT = ["--budget.total", "480", "--budget.sft_share", "0.167"]
"""Demonstrations and games, at the prices below."""
GAMES = [
    "--budget.prices.episode",
    "0",
    "--budget.prices.game",
    "50",
    "--budget.prices.demonstration",
    "5",
    "--trainer.max_epochs",
    "3",
]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--sft.demonstrations", "null"], "sft.demonstrations: it is null, and there is no budget"),
        (["--budget.total", "100", "--budget.sft_share", "0.6"], "sft.demonstrations: the budget says how many"),
        (["--budget.total", "100", "--budget.sft_share", "0"], "sft.demonstrations: the budget says how many"),
        ([*SPEND[:2], "--budget.total", "100", "--budget.sft_share", "0.6"], "trainer.max_epochs: the budget says"),
        (
            ["--sft", "null", "--budget.total", "99", "--budget.sft_share", "0.6"],
            "budget.sft_share: its 5 demonstrations",
        ),
        (
            [*SPEND, "--budget.total", "99", "--budget.sft_share", "0.3"],
            "sft.minibatches: 4 minibatches cannot each hold",
        ),
        ([*SPEND, "--budget.total", "93", "--budget.sft_share", "0.99"], "of 93 units 3 are left"),
        (
            [*SPEND, "--budget.total", "99", "--budget.sft_share", "0.6", "--data.schedule.resample_rounds", "1"],
            "data.schedule.resample_rounds",
        ),
        (["--elsewhere", '{"rl": {}}'], r"elsewhere\.rl: the name is taken"),
        (["--elsewhere", '{"x": {"split": "train"}}'], r"elsewhere\.split"),
        (["--elsewhere", '{"x": {"turns": 0}}'], r"elsewhere\.turns: 0 is below 1"),
        (
            ["--sft.demonstrations", "null", *GAMES, "--budget.total", "95", "--budget.sft_share", "0.95"],
            "budget: 5 units are left for RL, less than a game costs",
        ),
        (
            ["--sft.demonstrations", "null", *GAMES, *SIXTEEN_AND_EIGHT, "--trainer.check_val_every_n_epoch", "4"],
            r"trainer\.check_val_every_n_epoch: 4 is more than trainer\.max_epochs=3",
        ),
        (["--elsewhere", '{"x": {"tasks": "nothing"}}'], "nothing"),
    ],
)
def test_what_a_budget_cannot_buy_is_refused_before_anything_is_made(toy: str, args: list[str], words: str):
    with pytest.raises(BadInput, match=words):
        fit(["--config", toy, *args, "--run", "run"])
    assert not Path("run").exists()


def test_every_stage_is_measured_elsewhere_too(toy: str):
    elsewhere = {"longer": {"tasks": "r3-w2", "turns": 3, "count": 5}, "chosen_by": {"split": "validation"}}
    args = ["--config", toy, "--elsewhere", json.dumps(elsewhere), "--trainer.max_epochs", "2"]
    run = fit([*args, "--run", "run"])
    found = json.loads(Path("run/summary.json").read_text())["elsewhere"]
    assert list(found) == ["base", "sft", "rl"] and all(list(places) == list(elsewhere) for places in found.values())
    longer, chosen_by = found["rl"]["longer"]["conditions"], found["rl"]["chosen_by"]["conditions"]
    assert (longer["tasks"], longer["split"], longer["turn_limit"], found["rl"]["longer"]["n"]) == (
        "r3-w2",
        "test",
        3,
        5,
    )
    assert (chosen_by["tasks"], chosen_by["split"], chosen_by["turn_limit"]) == ("r2-w2", "validation", 2)
    validated = [float(row["validation/success"]) for row in rows("run") if row["validation/success"]]
    assert found["rl"]["chosen_by"]["rate"] == validated[-1]  # two ways to the same episodes
    played: dict[str, list[dict]] = {}
    for episode in map(json.loads, Path("run/episodes.jsonl").read_text().splitlines()):
        played.setdefault(episode["phase"], []).append(episode)
    assert (len(played["longer/sft"]), len(played["test/sft"])) == (5, 4)
    assert max(len(episode["turns"]) for phase in played if "longer" in phase for episode in played[phase]) == 3
    assert {episode["task"]["split"] for episode in played["chosen_by/rl"]} == {"validation"}
    assert fit([*args, "--run", "run", "--ckpt_path", "last"]).elsewhere == run.elsewhere  # nothing is played again
    config, more = Path("run/config.yaml").read_text(), json.dumps({**elsewhere, "more": {"split": "validation"}})
    with pytest.raises(BadInput, match=r"elsewhere\.more: base and sft and rl of run were measured without it"):
        fit(["--config", toy, "--elsewhere", more, "--trainer.max_epochs", "2", "--run", "run", "--ckpt_path", "last"])
    assert Path("run/config.yaml").read_text() == config
