"""Tables against numbers worked by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lit_agents.evaluation.stats.bootstrap import difference, success
from lit_agents.evaluation.stats.intervals import wilson
from lit_agents.evaluation.stats.paired import holm
from lit_agents.report.__main__ import main
from lit_agents.report.figures import band, curve
from lit_agents.report.load import Material, read
from lit_agents.report.tables import Estimate, Table, front, tables
from tests.report.folders import at, run, study

T, F = True, False
TASKS = "abcdefgh"


def won(pattern: str) -> dict[str, bool | None]:
    """``1`` won, ``0`` lost, ``-`` broken."""
    return {task: {"1": T, "0": F, "-": None}[mark] for task, mark in zip(TASKS, pattern, strict=True)}


@pytest.fixture
def material(tmp_path: Path) -> Material:
    """Two settings with two seeds each; the second one's shorter run ends with SFT."""
    run(tmp_path / "runs/a1", {"base": won("00000000"), "sft": won("11000000"), "rl": won("11110000")}, seed=1)
    run(tmp_path / "runs/a2", {"base": won("00000000"), "sft": won("10000000"), "rl": won("1110000-")}, seed=2)
    away = {stage: {"away": won("10000000")} for stage in ("base", "sft")}
    for seed in (1, 2):
        run(tmp_path / f"runs/b{seed}", {"base": won("0" * 8), "sft": won("1" * 8)}, seed, away, seconds=0.0)
    trials = [{"label": "split 0.5", "runs": [at("a1"), at("a2")]}, {"label": "split 1", "runs": [at("b1"), at("b2")]}]
    paper = {"source": "table 9", "rows": {"split 0.5": [0.85], "split 1": [None]}, "differences": ["a", "b"]}
    (found,) = read([study(tmp_path, trials, paper=paper)])
    return found


def table(material: Material, name: str) -> Table:
    return next(t for t in tables(material) if t.name == name)


def test_levels(material: Material):
    found = table(material, "success_test")
    assert found.columns == ("setting", "base", "sft", "rl", "last stage, by seed", "n", "tasks", "failures")
    first, second = found.rows
    assert [first[0], *first[4:]] == ["split 0.5", "1: 0.500; 2: 0.429", 15, 8, 1]  # 4 of 8, 3 of 7
    base, sft, rl = first[1:4]
    assert isinstance(base, Estimate) and (base.mean, base.low, base.high) == (0.0, *wilson(0, 8))
    assert isinstance(sft, Estimate) and sft.mean == 3 / 16
    assert isinstance(rl, Estimate) and rl.mean == pytest.approx(7 / 15) and rl.low < 7 / 15 < rl.high
    assert second[3] is None and second[2] == Estimate(1.0, *wilson(8, 8))


def test_gains_are_paired_by_seed_and_task(material: Material):
    (first, second) = table(material, "gain_test").rows
    assert isinstance(first[3], Estimate) and first[3].mean == pytest.approx(4 / 14)
    # h is in no pair, as seed 2 has lost it; of 7 tasks b, c, d gained 1/2, 1, 1/2: 2 of the 8 patterns of signs are as far off
    assert first[4] == 2 / 8
    assert isinstance(second[1], Estimate) and (second[1].mean, second[1].high) == (1.0, 1.0)
    assert second[1].low == pytest.approx(1 - 2**0.5 * wilson(0, 8)[1])  # all alike: as sure as eight tasks can make it
    assert second[2] == 2 / 2**8 and second[3:] == (None, None)


def test_stages_are_in_their_order_whichever_setting_comes_first(tmp_path: Path):
    """A setting without a supervised stage comes first in a study of splits."""
    run(tmp_path / "runs/a1", {"base": won("0" * 8), "rl": won("1" * 8)})
    run(tmp_path / "runs/b1", {"base": won("0" * 8), "sft": won("11110000"), "rl": won("1" * 8)})
    trials = [{"label": "split 0", "runs": [at("a1")]}, {"label": "split 0.5", "runs": [at("b1")]}]
    (found,) = read([study(tmp_path, trials)])
    assert table(found, "success_test").columns[1:4] == ("base", "sft", "rl")
    gained = table(found, "gain_test")
    assert gained.columns[1::2] == ("sft - base", "rl - sft", "rl - base")
    assert [cell and cell.mean for cell in gained.rows[0][1::2]] == [None, None, 1.0]
    assert [cell.mean for cell in gained.rows[1][1::2]] == [0.5, 0.5, 1.0]


def test_settings_are_compared_and_corrected_for_how_many(material: Material):
    (row,) = table(material, "compared_test").rows
    assert row[:2] == ("split 1", "split 0.5") and row[5] == 2
    assert isinstance(row[2], Estimate) and row[2].mean == pytest.approx(7 / 14) and row[2].signed
    # of 7 tasks e, f, g differ by 1 and d by 1/2: no pattern but the two extremes is as far off
    assert row[3] == row[4] == 2 / 2**4


def test_another_place_is_compared_where_it_was_measured(material: Material):
    assert material.places == ["test", "away"]
    assert [row[0] for row in table(material, "success_away").rows] == ["split 1"]
    assert not [t for t in tables(material) if t.name == "compared_away"]


def test_other_tasks_are_not_paired(tmp_path: Path):
    environment = {"class": "e", "task_files": "others"}
    one = run(tmp_path / "one", {"base": won("0" * 8), "rl": won("1" * 8)})
    other = {"model": {"class_path": "lit_agents.algorithm.grpo.GRPO", "init_args": {"warmup": 3}}}
    two = run(tmp_path / "two", {"base": won("0" * 8), "rl": won("1" * 8)}, config=other, environment=environment)
    (material,) = read([one, two])
    assert not [t for t in tables(material) if t.name == "compared_test"]
    assert table(material, "success_test").note.endswith("Measured with different environment.task_files.")


def test_a_search_shows_what_it_chose_and_what_that_does_elsewhere(tmp_path: Path):
    def trial(name: str, home: str, away: str, test: str) -> dict[str, object]:
        places = {stage: {"home": won(home), "away": won(away)} for stage in ("base", "rl")}
        run(tmp_path / "runs" / name, {"base": won("0" * 8), "rl": won(test)}, 1, places)
        return {"label": name, "runs": [at(name)]}

    trials = [trial("a", "11110000", "10000000", "10000000"), trial("b", "11000000", "11000000", "11111111")]
    trials += [trial("c", "11000000", "10000000", "11111111")]  # a is better at home, b away
    (material,) = read([study(tmp_path, trials, objectives=["home", "away"], searched=True)])
    found = table(material, "chosen")
    assert [row[0] for row in found.rows] == ["a", "b"] and found.columns == ("setting", "home", "away", "test")
    assert [cell.mean for cell in found.rows[0][1:] if isinstance(cell, Estimate)] == [0.5, 0.125, 0.125]
    assert [row[:2] for row in table(material, "compared_test").rows] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_costs_are_means_over_seeds(material: Material):
    found = table(material, "cost")
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert (row["demonstrations"], row["episodes"], row["seconds: sft"], row["seconds: tests"]) == (2, 8, 1.0, 3.0)
    assert row["seconds: rl"] == 10.0 and dict(zip(found.columns, found.rows[1], strict=True))["seconds: rl"] == 0.0


def test_the_papers_numbers_stand_beside_ours(material: Material):
    found = table(material, "paper")
    assert found.note == "table 9. Other set-up: a; b."
    assert [row[:2] for row in found.rows] == [("split 0.5", 0.85), ("split 1", None)]
    assert isinstance(found.rows[0][2], Estimate) and found.rows[0][2].mean == pytest.approx(7 / 15)


def test_holm_worked_by_hand():
    # in order .01 x 3, .02 x 2, .3 x 1; and never below one before
    assert holm([0.02, 0.3, 0.01]) == pytest.approx([0.04, 0.3, 0.03])
    assert holm([0.02, 0.025, 0.9]) == pytest.approx([0.06, 0.06, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_difference_without_any_spread_is_not_certain():
    same = [dict.fromkeys(TASKS, (1, 1))]
    mean, low, high = difference(same, same)
    assert mean == 0 and (low, high) == (-wilson(0, 8)[1], wilson(0, 8)[1])


def test_two_studies_of_one_name_have_files_of_their_own_and_old_ones_go(tmp_path: Path):
    for name, pattern in (("one", "1" * 8), ("two", "0" * 8)):
        run(tmp_path / name / "runs" / "x", {"base": won("0" * 8), "rl": won(pattern)})
        study(tmp_path / name, [{"label": "split $1$", "runs": [at("x")]}, {"label": "split $2$", "runs": [at("x")]}])
    out = tmp_path / "out"
    assert main([str(tmp_path / "one"), str(tmp_path / "two"), "--output", str(out)]) == 0
    rates = []
    for number in (1, 2):
        with (out / f"split-{number}_success_test.csv").open(newline="") as file:
            rates.append(float(next(csv.DictReader(file))["rl"]))
    assert rates == [1.0, 0.0]
    (out / "mine.csv").write_text("kept")
    assert main([str(tmp_path / "one"), "--output", str(out)]) == 0
    assert not list(out.glob("split-*")) and (out / "success_test.csv").is_file() and (out / "mine.csv").is_file()


def test_a_rate_that_was_hardly_ever_seen_is_no_surer_than_one_that_never_was():
    tasks = [f"t{i}" for i in range(64)]
    never = [dict.fromkeys(tasks, (0, 1)) for _ in range(3)]
    once = [*never[:2], {**never[2], "t0": (1, 1)}]
    assert success(never)[2] < success(once)[2] and success(once)[0] == 1 / 192


def test_a_front_keeps_what_nothing_beats_in_both():
    points = [(1.0, 0.2), (2.0, 0.1), (0.5, 0.9), (2.0, 0.05), (1.0, 0.2)]
    assert front(points) == [2, 0, 4, 1]  # the fourth is as far right as the second, and lower


def test_curves_go_over_what_was_spent(tmp_path: Path):
    prices = {"demonstration": 10.0, "episode": 2.0}
    paid = run(tmp_path / "paid", {"base": won("0" * 8), "rl": won("1" * 8)}, config={"budget": {"prices": prices}})
    free = run(tmp_path / "free", {"base": won("0" * 8), "rl": won("1" * 8)})
    one, other = (read([folder])[0].settings[0].records[0] for folder in (paid, free))
    assert curve(one, "rollout/success") == [(28.0, 0.25), (36.0, 0.5)]  # 2 demonstrations, 4 episodes an iteration
    assert curve(other, "validation/success") == [(8.0, 0.5)]
    assert band([[(1, 0.0), (2, 0.5)], [(3, 1.0)]]) == [(2.0, 0.5, 0.0, 1.0)]


def test_files_hold_the_tables(material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "0.467" in out and f"report: {tmp_path / 'out' / 'report.html'}" in out
    (content,) = json.loads((tmp_path / "out" / "report.json").read_text())["parts"]
    cell = content["tables"]["success_test"]["rows"][0][3]
    assert cell["mean"] == pytest.approx(7 / 15)
    with (tmp_path / "out" / "success_test.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["rl"]) == cell["mean"] and float(row["rl, low"]) == cell["low"] and row["n"] == "15"
    pictures = {p.name for p in (tmp_path / "out").glob("*.png")}
    assert pictures == {"curves.png", "transfer.png", "frontier.png"}
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere: it holds neither" in capsys.readouterr().err
