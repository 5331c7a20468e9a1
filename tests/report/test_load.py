"""What belongs together, and what is left out aloud."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_agents.errors import BadInput
from lit_agents.report.__main__ import main
from lit_agents.report.load import read
from tests.report.folders import CONFIG, at, run, study

NONE, ONE, TWO = ({"a": a, "b": b} for a, b in ((False, False), (True, False), (True, True)))


def test_runs_that_differ_in_their_seed_are_one_setting_and_others_are_named_by_what_differs(tmp_path: Path):
    ppo = {"model": {"class_path": "lit_agents.algorithm.grpo.GRPO", "init_args": {"warmup": 5}}, "name": "other"}
    folders = [
        run(tmp_path / "two", {"base": NONE, "rl": ONE}, seed=2),
        run(tmp_path / "one", {"base": NONE, "rl": TWO}, seed=1),
        run(tmp_path / "warm", {"base": NONE, "rl": ONE}, seed=1, config=ppo),
    ]
    (material,) = read(folders)
    assert [(s.label, s.seeds) for s in material.settings] == [("warmup=2", [1, 2]), ("warmup=5", [1])]
    assert not material.gaps
    (alone,) = read(folders[:2])
    assert [s.label for s in alone.settings] == ["all runs"]


def test_runs_that_differ_in_much_are_called_by_their_names(tmp_path: Path):
    other = {"name": "other", "data": {"tasks": "x" * 120, "environment": CONFIG["data"]["environment"]}}
    folders = [
        run(tmp_path / str(number), {"base": NONE, "rl": ONE}, config=config)
        for number, config in enumerate(({}, other))
    ]
    assert [setting.label for setting in read(folders)[0].settings] == ["toy", "other"]


def test_a_run_that_began_with_another_ones_supervised_stage_has_that_stage(tmp_path: Path):
    start = run(tmp_path / "start", {"base": NONE, "sft": ONE}, config={"trainer": {"max_epochs": 0}})
    ledger = json.loads((start / "ledger.json").read_text())
    ledger["seconds"]["test/sft"] = 7.0  # after the checkpoint, so the other run's ledger does not go on from it
    (start / "ledger.json").write_text(json.dumps(ledger))
    checkpoint = start / "checkpoints" / "sft" / "last.ckpt"
    folder = run(tmp_path / "rl", {"base": ONE, "rl": TWO}, config={"start_from": str(checkpoint)})
    (material,) = read([folder])
    (setting,) = material.settings
    assert setting.stages == ["base", "sft", "rl"]
    assert [setting.records[0].result("test", stage).rate for stage in setting.stages] == [0.0, 0.5, 1.0]
    assert setting.records[0].ledger["seconds"] == {"sft": 1.0, "rl": 10.0, "test/base": 3.0, "test/sft": 7.0}


def test_runs_of_one_supervised_stage_show_what_they_measured_of_it_themselves_and_that_it_is_one(tmp_path: Path):
    start = run(tmp_path / "start", {"base": NONE, "sft": ONE}, config={"trainer": {"max_epochs": 0}})
    config = {"start_from": str(start / "checkpoints" / "sft" / "best.ckpt")}
    folders = [
        run(tmp_path / str(seed), {"base": began, "rl": TWO}, seed=seed, config=config)
        for seed, began in ((1, ONE), (2, NONE))
    ]
    (material,) = read(folders)
    (setting,) = material.settings
    assert [result.rate for r in setting.records if (result := r.result("test", "sft"))] == [0.5, 0.0]
    (gap,) = material.gaps
    assert f"2 seeds share 1 starting point ({start})" in gap


def test_a_run_whose_start_is_no_supervised_stage_or_is_gone_says_start(tmp_path: Path):
    start = run(tmp_path / "start", {"base": NONE, "rl": ONE})
    of_rl = {"start_from": str(start / "checkpoints" / "rl" / "last.ckpt")}
    gone = {"start_from": str(tmp_path / "nowhere" / "checkpoints" / "sft" / "last.ckpt")}
    for number, config in enumerate((of_rl, gone, {"start_from": "/a.ckpt"})):
        (material,) = read([run(tmp_path / str(number), {"base": ONE, "rl": TWO}, config=config)])
        assert material.settings[0].stages == ["start", "rl"]


def test_a_start_that_was_not_tested_is_a_gap(tmp_path: Path):
    start = run(tmp_path / "start", {"base": NONE})
    config = {"start_from": str(start / "checkpoints" / "sft" / "last.ckpt")}
    good = run(tmp_path / "good", {"base": ONE, "rl": TWO})
    (material,) = read([run(tmp_path / "rl", {"base": ONE, "rl": TWO}, seed=2, config=config), good])
    assert "start: it has not been tested after sft" in material.gaps[0] and len(material.settings) == 1


def test_a_page_goes_into_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(tmp_path / "r", {"base": NONE, "rl": ONE})
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "r"), "--output", str(tmp_path / "file")]) == 2
    assert "file cannot be a folder (File exists)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stages": {"base": NONE}}, "has not been tested after rl yet"),
        ({"turn_limit": 3}, "its turn_limit is 3, not 2 as in"),
        ({"seed": 1}, "it has the seed of"),
        ({"stages": {"base": NONE, "sft": ONE, "rl": ONE}}, "two has test after base, test after sft, test after rl;"),
    ],
)
def test_what_cannot_be_put_together_is_left_out_and_named(tmp_path: Path, change, words: str):
    given = {"stages": {"base": NONE, "rl": ONE}, "seed": 2} | change
    folders = [run(tmp_path / "one", {"base": NONE, "rl": ONE}), run(tmp_path / "two", **given)]
    (material,) = read(folders)
    assert material.settings[0].seeds == [1]
    (gap,) = material.gaps
    assert words in gap and str(tmp_path / "two") in gap


def test_a_place_where_not_all_seeds_were_measured_alike_is_left_out_and_the_seeds_are_not(tmp_path: Path):
    there: dict[str, Any] = {"base": {"away": NONE, "far": NONE}, "rl": {"away": ONE, "far": ONE}}
    folders = [
        run(tmp_path / "one", {"base": NONE, "rl": ONE}, elsewhere=there, config={"elsewhere": {"away": 1, "far": 1}}),
        run(tmp_path / "two", {"base": NONE, "rl": TWO}, seed=2, elsewhere=there, config={"elsewhere": {"far": 1}}),
        run(
            tmp_path / "three",
            {"base": NONE, "rl": TWO},
            seed=3,
            elsewhere={s: {"far": there[s]["far"]} for s in there},
        ),
    ]
    (material,) = read(folders)
    assert [(s.label, s.seeds) for s in material.settings] == [("all runs", [1, 2, 3])]
    assert material.places == ["test", "far"]
    (gap,) = material.gaps
    assert gap.startswith("all runs: away is left out: ")
    assert f"{tmp_path / 'three'} has nothing; {tmp_path / 'one'} has away after base, away after rl." in gap
    assert str(tmp_path / "two") not in gap
    alike = read(folders[:2])[0]
    assert alike.places == ["test", "away", "far"] and not alike.gaps
    (extra,) = read([folders[2], folders[0]])  # the one that lacks it comes last or first
    assert extra.places == ["test", "far"] and extra.settings[0].seeds == [1, 3]


def test_a_place_that_was_measured_in_another_way_is_left_out(tmp_path: Path):
    there: dict[str, Any] = {"base": {"away": NONE}, "rl": {"away": ONE}}
    folders = [run(tmp_path / str(n), {"base": NONE, "rl": ONE}, seed=n, elsewhere=there) for n in (1, 2)]
    path = folders[1] / "summary.json"
    text = path.read_text()
    assert "files of away" in text
    path.write_text(text.replace("files of away", "others"))
    (material,) = read(folders)
    assert material.places == ["test"] and material.settings[0].seeds == [1, 2]
    assert "away is left out: its environment" in material.gaps[0]


def test_a_seed_is_counted_once(tmp_path: Path):
    folders = [run(tmp_path / str(n), {"base": NONE, "rl": ONE}, seed=seed) for n, seed in enumerate((1, 2, 2, 3))]
    (material,) = read(folders)
    assert material.settings[0].seeds == [1, 2, 3]
    (gap,) = material.gaps
    assert f"{tmp_path / '2'} is left out: it has the seed of {tmp_path / '1'}" in gap


def test_a_setting_that_an_older_run_does_not_know_is_as_if_it_was_null_and_no_label_hides_another(tmp_path: Path):
    unknown = run(tmp_path / "unknown", {"base": NONE, "rl": ONE}, seed=2)
    content = yaml.safe_load((unknown / "config.yaml").read_text())
    del content["budget"]
    (unknown / "config.yaml").write_text(yaml.safe_dump(content))
    (material,) = read([run(tmp_path / "null", {"base": NONE, "rl": ONE}), unknown])
    assert [(s.label, s.seeds) for s in material.settings] == [("all runs", [1, 2])]
    models = [{"model": {**CONFIG["model"], "init_args": {"warmup": value}}} for value in (2, "2")]
    alike = [run(tmp_path / f"w{n}", {"base": NONE, "rl": ONE}, config=config) for n, config in enumerate(models)]
    assert [s.label for s in read(alike)[0].settings] == ["warmup=2", "warmup=2 (2)"]


def test_what_the_environment_broke_altogether_is_left_out(tmp_path: Path):
    broken: dict[str, bool | None] = {"a": None, "b": None}
    folders = [run(tmp_path / str(n), {"base": base, "rl": ONE}, seed=n) for n, base in ((1, NONE), (2, broken))]
    (material,) = read(folders)
    assert material.settings[0].seeds == [1]
    assert "the environment broke every episode of test after base" in material.gaps[0]


def test_a_study_shows_what_has_ended_in_its_own_order_and_names_the_rest(tmp_path: Path):
    run(tmp_path / "runs" / "x", {"base": ONE, "rl": TWO})
    run(tmp_path / "sft" / "s", {"base": NONE, "sft": ONE})
    run(tmp_path / "runs" / "y", {"base": NONE, "rl": ONE})
    run(tmp_path / "runs" / "half", {"base": NONE, "rl": ONE}, seed=2)
    (tmp_path / "runs" / "half" / "summary.json").write_text('{"seed": 2, "succ')
    trials = [
        {"label": "split 1", "runs": [at("y"), at("half")]},
        {"label": "split 0", "runs": [at("x", "s")]},
        {"label": "split 2", "state": "FAIL", "error": "out of memory"},
        {"label": "split 3", "state": "RUNNING"},
        {"label": "split 4", "state": "PRUNED"},
        {"label": "split 5", "runs": [at("nowhere")]},
    ]
    (material,) = read([study(tmp_path, trials, order=["split 0", "split 1"], open=2)])
    assert [(s.label, s.seeds, s.stages) for s in material.settings] == [
        ("split 0", [1], ["base", "sft", "rl"]),
        ("split 1", [1], ["base", "rl"]),
    ]
    said = "\n".join(material.gaps)
    assert "2 settings have not been begun" in said and "split 2: out of memory" in said
    assert "split 3: under way" in said and "split 4: given up, it fell behind" in said
    assert "half" in said and "nowhere" in said and len(material.gaps) == 6


def test_runs_of_a_study_that_began_with_a_checkpoint_have_no_untouched_model_and_one_start_is_named(tmp_path: Path):
    given = {"start_from": "runs/mine/checkpoints/sft/best.ckpt"}
    for seed in (1, 2):
        run(tmp_path / "runs" / str(seed), {"base": ONE, "rl": TWO}, seed=seed, config=given)
        run(tmp_path / "sft" / str(seed), {"base": NONE, "sft": ONE}, seed=seed, config=given)
        own = {"start_from": f"{tmp_path}/sft/{seed}/checkpoints/sft/best.ckpt"}
        run(tmp_path / "runs" / f"own{seed}", {"base": ONE, "rl": TWO}, seed=seed, config=own)
    trials = [
        {"label": "given", "runs": [at("1"), at("2")]},
        {"label": "own", "runs": [at("own1", "1"), at("own2", "2")]},
    ]
    (material,) = read([study(tmp_path, trials)])
    assert [setting.stages for setting in material.settings] == [["start", "rl"], ["start", "sft", "rl"]]
    (gap,) = material.gaps
    assert gap.startswith("given: 2 seeds share 1 starting point (runs/mine/checkpoints/sft/best.ckpt)")


def test_a_run_that_has_not_been_tested_is_to_end_and_not_to_be_deleted(tmp_path: Path):
    good, young = run(tmp_path / "good", {"base": NONE, "rl": ONE}), run(tmp_path / "young", {"base": NONE}, seed=2)
    (young / "summary.json").unlink()
    (material,) = read([good, young])
    assert material.gaps == (f"left out: {young}: it has not been tested yet. Let the run end.",)


def test_what_holds_nothing_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty: it holds neither study\.json nor"):
        read([tmp_path / "empty"])
    half = run(tmp_path / "half", {"base": NONE})
    with pytest.raises(BadInput, match="half: there is no finished run"):
        read([half])
    (half / "config.yaml").write_text("a: [")
    with pytest.raises(BadInput, match=r"config\.yaml: it cannot be read"):
        read([half])
    broken = study(tmp_path / "study", [])
    (broken / "study.json").write_text('{"name": "x"}')
    with pytest.raises(BadInput, match="cannot be read as a study"):
        read([broken])


def test_a_stage_that_was_all_there_should_be_is_an_end(tmp_path: Path):
    imitation = {"model": {**CONFIG["model"], "class_path": "lit_agents.algorithm.sft.SFT"}}
    for number, config in enumerate((imitation, {"trainer": {"max_epochs": 0}}, {"budget": {"sft_share": 1.0}})):
        folder = run(tmp_path / str(number), {"base": NONE, "sft": ONE}, config=config)
        assert read([folder])[0].settings[0].last == "sft"
