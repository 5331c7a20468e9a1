"""A study's file: what it means, and what it cannot mean."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from lightning.pytorch.cli import instantiate_class

from lit_agents.errors import BadInput
from lit_agents.rollout.budget import Budget
from lit_agents.study.command_line import parsed, resolve
from lit_agents.study.config import Study, Wandb
from lit_agents.study.config_merge import Settings
from lit_agents.study.factors import Factor
from lit_agents.study.launcher import Runs
from lit_agents.study.memory_room import Room
from lit_agents.study.pruning import _validations
from lit_agents.study.shared_sft import shared_stage, stage_digest
from lit_agents.tune import main
from lit_agents.types import Task

SPLIT = Factor(flag="budget.sft_share", values=[0.0, 0.5])
RATE = Factor(flag="model.lr", low=1e-5, high=1e-3, log=True)
TPE = optuna.samplers.TPESampler(seed=0)


@pytest.fixture
def base(tmp_path: Path) -> str:
    (tmp_path / "base.yaml").write_text(
        "name: base\nmodel: {class_path: A, init_args: {x: 1}}\ndata: {tasks: t, n: 1}\n"
    )
    return str(tmp_path / "base.yaml")


SCALE = Path(__file__).parents[2] / "sweeps" / "scale"


@pytest.mark.parametrize(
    "name", ["sft_rl_split", "algorithms", "complexity", "step_limit", "transfer", "reward_density"]
)
def test_a_shipped_study_of_textworld_has_another_scale(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(SCALE.parents[1])
    here, _ = parsed(["--config", f"sweeps/{name}.yaml"])
    there, _ = parsed(["--config", f"sweeps/{name}.yaml", "--over", "[sweeps/scale/paper.yaml]"])
    assert here.identity() != there.identity() and here.labels() == there.labels()
    for setting in there.combinations():
        config = there.configuration(setting, 1)
        assert config["model"]["init_args"]["policy"]["init_args"]["weights"].startswith("Qwen/")
        assert (config["trainer"]["devices"], config["data"]["schedule"]["tasks"]) == (8, 64)
        small = here.configuration(setting, 1)
        assert (config["data"]["tasks"], config["model"]["class_path"]) == (
            small["data"]["tasks"],
            small["model"]["class_path"],
        )
        assert config.get("budget") == small.get("budget")


@pytest.mark.parametrize(
    "name", ["sft_rl_split", "algorithms", "complexity", "step_limit", "transfer", "reward_density"]
)
def test_the_paper_scale_is_one_that_eight_processes_can_run(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(SCALE.parents[1])
    (tmp_path / "cpu.yaml").write_text("trainer: {accelerator: cpu, precision: 32-true}\n")
    over = ["sweeps/scale/paper.yaml", f"{tmp_path}/cpu.yaml"]
    given = ["--config", f"sweeps/{name}.yaml"]
    if name == "sft_rl_split":
        over.append("sweeps/scale/budget.yaml")
        given += ["--factors.split.values", "[0, 0.016, 0.064, 0.256]", "--paper", "null"]  # as budget.yaml says
    study, _ = parsed([*given, "--over", json.dumps(over)])
    settings = list(study.combinations())
    for setting in settings if name == "sft_rl_split" else settings[:: len(settings) - 1]:
        found = Runs(tmp_path, resolve, Room(1)).resolved(study.configuration(setting, 1))
        assert found.stages[-1] == "rl" and found.demonstrations % 8 == 0


@pytest.mark.parametrize("name", ["reward_density", "sft_rl_density"])
def test_every_density_has_a_reward_that_its_games_can_give(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(SCALE.parents[1])
    study, _ = parsed(["--config", f"sweeps/{name}.yaml"])
    # the fewest that such games have
    increments = {"tw-simple-sparse": 1, "tw-simple-balanced": 3, "tw-simple-dense": 7}
    seen = set()
    for setting in study.examples():
        data = study.configuration(setting, 1)["data"]
        reward = instantiate_class((), data["reward"])
        seen.add(data["tasks"])
        reward.check([Task(data["tasks"], "1", "train", rewards=increments[data["tasks"]])])
    assert seen == increments.keys()


def test_an_objective_without_settings_is_a_test(base: str):
    places = Settings({"elsewhere": {"home": None}})
    with pytest.raises(BadInput, match="the sampler would choose settings by home"):
        Study("s", [base], {"split": SPLIT}, places, objectives=["home"], sampler=TPE, trials=3)


def test_runs_of_a_study_are_one_group_and_have_names_of_their_own(base: str):
    study = Study("s", [base], {"n": Factor(flag="data.n", values=[1, 2])}, wandb=Wandb("project"))
    loggers = [study.configuration({"n": n}, seed)["trainer"]["logger"]["init_args"] for n in (1, 2) for seed in (1, 2)]
    assert {(each["project"], each["group"]) for each in loggers} == {("project", "s")}
    assert len({each["name"] for each in loggers}) == 4


def test_a_factor_that_another_one_overrules_is_refused(base: str):
    levels = {"b": Settings({"model": {"class_path": "B", "init_args": {"y": 1}}})}
    rate = Factor(flag="model.lr2.x", values=[2, 3])
    other = Factor(flag="model.init_args.lr", values=[2, 3])
    fine = Study("s", [base], {"algorithm": Factor(levels=levels), "rate": other})
    assert fine.configuration({"algorithm": "b", "rate": 3}, 1)["model"]["init_args"]["lr"] == 3
    for factors in ({"rate": other, "algorithm": Factor(levels=levels)}, {"one": rate, "two": rate}):
        study = Study("s", [base], factors)
        setting = {"rate": 3, "algorithm": "b"} if "rate" in factors else {"one": 2, "two": 3}
        with pytest.raises(BadInput, match="another factor overrules it"):
            study.configuration(setting, 1)
    with pytest.raises(BadInput, match="the study sets it itself"):
        Factor(flag="seed_everything", values=[1, 2])
    with pytest.raises(BadInput, match="no order of magnitude"):
        Factor(flag="a", low=0.0, high=1.0, log=True)
    with pytest.raises(BadInput, match="two settings called"):
        Study("s", [base], {"a": Factor(flag="a", values=[0.3333333, 0.33333331])})


def test_a_search_is_tried_out_with_every_level_and_both_ends(base: str):
    factors = {"n": Factor(flag="n", low=4, high=8, integer=True), "split": Factor(flag="s", values=[0.1, 0.2, 0.3])}
    places = Settings({"elsewhere": {"home": {"split": "validation"}}})
    study = Study("s", [base], factors, places, objectives=["home"], sampler=TPE, trials=3)
    found = list(study.examples())
    assert found == [{"n": n, "split": s} for n, s in ((4, 0.1), (8, 0.1), (4, 0.2), (4, 0.3))]
    assert all(type(setting["n"]) is int for setting in found)


def test_a_file_over_the_settings_sets_the_budget_for_all(base: str, tmp_path: Path):
    (tmp_path / "large.yaml").write_text("budget: {total: 500}\nmodel: {init_args: {x: 9}}\n")
    settings = Settings({"budget": {"total": 10, "prices": {"episode": 2}}, "model": {"init_args": {"x": 2}}})
    study = Study("s", [base], {"split": SPLIT}, settings, [str(tmp_path / "large.yaml")])
    config = study.configuration({"split": 0.5}, 1)
    assert study.total == 500 and config["budget"] == {"total": 500, "prices": {"episode": 2}, "sft_share": 0.5}
    assert config["model"]["init_args"]["x"] == 9


def test_levels_lie_over_settings_and_files_under_them(base: str, tmp_path: Path):
    (tmp_path / "b.yaml").write_text("name: other\nmodel: {class_path: B, init_args: {y: 2}}\ndata: {n: 5, m: 6}\n")
    levels = {"a": Settings(), "b": str(tmp_path / "b.yaml")}
    factors = {"algorithm": Factor(levels=levels), "n": Factor(flag="data.k", values=[1, 2])}
    study = Study("s", [base], factors, Settings({"data": {"n": 9, "k": 0}}), seeds=[3, 4])
    assert list(study.combinations()) == [
        {"algorithm": a, "n": n} for a in ("a", "b") for n in (1, 2)
    ]  # in the file's order
    assert study.configuration({"algorithm": "a", "n": 2}, 4) == {
        "name": "s",
        "model": {"class_path": "A", "init_args": {"x": 1}},
        "data": {"tasks": "t", "n": 9, "k": 2},
        "seed_everything": 4,
    }
    found = study.configuration({"algorithm": "b", "n": 1}, 3)
    assert found["model"] == {"class_path": "B", "init_args": {"y": 2}}
    assert found["data"] == {"tasks": "t", "n": 9, "k": 1, "m": 6}  # the study's 9 over the file's 5


def test_a_study_is_what_its_results_depend_on(base: str):
    study = Study("s", [base], {"split": SPLIT}, seeds=[1])
    assert study.identity() == Study("other", [base], {"split": SPLIT}, seeds=[1]).identity()
    assert (
        study.identity() != Study("s", [base], {"split": SPLIT}, seeds=[1, 2]).identity()
    )  # or a mean would be of fewer
    assert study.identity() != Study("s", [base], {"split": SPLIT}, Settings({"data": {"n": 2}})).identity()
    (Path(base).parent / "level.yaml").write_text("data: {n: 1}")
    filed = Study("s", [base], {"x": Factor(levels={"l": str(Path(base).parent / "level.yaml")})})
    before = filed.identity()
    (Path(base).parent / "level.yaml").write_text("data: {n: 2}")
    assert filed.identity() != before  # what a file says counts, not what it is called
    before = study.identity()
    Path(base).write_text("name: base\ndata: {tasks: t}\n")
    assert study.identity() != before


PLACES = Settings({"elsewhere": {"home": {"split": "validation"}, "away": {"tasks": "w"}}})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Factor(), "neither a flag with values"),
        (lambda: Factor(flag="a"), "neither a flag with values"),
        (lambda: Factor(flag="a", values=[1], low=1, high=2), "neither a flag with values"),
        (lambda: Factor(values=[1]), "neither a flag with values"),
        (lambda: Factor(flag="a", levels={"x": Settings()}), "neither a flag with values"),
        (lambda: Factor(flag="a", low=1), "neither a flag with values"),
        (lambda: Factor(flag="a", low=2, high=1), "low=2 is not below high=1"),
        (lambda: Factor(flag="a", values=[1], log=True), "log and integer"),
        (lambda: Factor(flag="a", low=0.5, high=8, integer=True), "no whole number"),
        (lambda: Study("s", ["b"], {}), "it needs base"),
        (lambda: Study("s", ["b"], {"x": SPLIT}, seeds=[1, 1]), "seeds: one is named twice"),
        (lambda: Study("s", ["b"], {"x": RATE}), "factors.x: a range"),
        (lambda: Study("s", ["b"], {"x": SPLIT}, trials=3), "trials: without a sampler"),
        (lambda: Study("s", ["b"], {"x": SPLIT}, pruner=optuna.pruners.MedianPruner()), "pruner: without a sampler"),
        (lambda: Study("s", ["b"], {"x": RATE}, PLACES, objectives=["home"], sampler=TPE), "trials: a sampler"),
        (lambda: Study("s", ["b"], {"x": RATE}, PLACES, sampler=TPE, trials=3), "choose settings by test"),
        (
            lambda: Study("s", ["b"], {"x": RATE}, PLACES, objectives=["home", "away"], sampler=TPE, trials=3),
            "choose settings by away",
        ),
        (lambda: Factor(levels={"x": "nowhere.yaml"}).settings("x"), r"nowhere\.yaml: it cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, words: str):
    with pytest.raises(BadInput, match=words):
        make()


CONFIG = {
    "name": "a", "seed_everything": 1, "budget": {"total": 9}, "watch": {}, "keep_weights": 0, "preflight": False,
    "start_from": None, "elsewhere": {},
    "model": {"class_path": "GRPO", "init_args": {"policy": {"w": 1}, "optimizer": {"lr": 1}}},
    "data": {"tasks": "t", "reward": "r", "sampling": {"temperature": 1, "max_tokens": 8},
             "train_tasks": 5, "schedule": {"tasks": 2, "micro_batch_tokens": 9}},
    "trainer": {"max_epochs": None, "check_val_every_n_epoch": 1, "logger": False, "precision": "32"},
    "sft": {"demonstrations": None, "epochs": 3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ({"model": {"class_path": "PPO", "init_args": {"policy": {"w": 1}}}}, True),
        ({"budget": None, "sft": {"demonstrations": 7, "epochs": 3}}, True),
        ({"trainer": {**CONFIG["trainer"], "max_epochs": 4}}, True),
        ({"data": {**CONFIG["data"], "reward": "s", "schedule": {"tasks": 9, "micro_batch_tokens": 9}}}, True),
        ({"model": {"class_path": "GRPO", "init_args": {"policy": {"w": 2}}}}, False),
        ({"data": {**CONFIG["data"], "sampling": {"temperature": 2, "max_tokens": 8}}}, True),
        ({"data": {**CONFIG["data"], "sampling": {"temperature": 1, "max_tokens": 9}}}, False),
        ({"seed_everything": 2}, False),
        ({"sft": {"demonstrations": None, "epochs": 4}}, False),
        ({"data": {**CONFIG["data"], "tasks": "u"}}, False),
        ({"data": {**CONFIG["data"], "schedule": {"tasks": 2, "micro_batch_tokens": 8}}}, False),
        ({"elsewhere": {"x": {}}}, False),
        ({"a_new_setting": 1}, False),
    ],
)
def test_what_decides_a_supervised_stage_is_in_its_name(change: dict, shared: bool):
    assert (stage_digest({**CONFIG, **change}, 7) == stage_digest(CONFIG, 7)) is shared
    assert stage_digest(CONFIG, 8) != stage_digest(CONFIG, 7)


def test_a_stage_is_another_one_when_what_it_began_with_was_made_anew(tmp_path: Path):
    start = tmp_path / "last.ckpt"
    names = set()
    for content in ("one", "two"):
        start.write_text(content)
        names |= {stage_digest({**CONFIG, "start_from": str(start)}, 7) for _ in range(2)}
    assert len(names | {stage_digest(CONFIG, 7)}) == 3


def test_only_a_run_with_demonstrations_has_a_stage_to_share():
    assert shared_stage(CONFIG, 0) is None and shared_stage({**CONFIG, "sft": None}, 7) is None
    untouched = {"class_path": "GRPO", "init_args": {"policy": {}, "kl": {"reference": "base"}}}
    assert shared_stage({**CONFIG, "model": untouched}, 7) is None  # its reference would be what the stage came to
    assert shared_stage(CONFIG, 7) == {"sft": {"demonstrations": 7}, "budget": None, "trainer": {"max_epochs": 0}}


def test_validations_are_placed_by_what_was_spent(tmp_path: Path):
    (tmp_path / "m.csv").write_text(
        "stage,iteration,validation/success\nsft,1,0.9\nrl,1,\nrl,2,0.25\nrl,4,0.5\nrl,7,0.75\n"
    )
    found = _validations(tmp_path / "m.csv", Budget(1000, 0.6), 64)
    assert found == [(728.0, 0.25), (856.0, 0.5), (1000.0, 0.75)]  # 600 + 2 x 64; the last iteration is a part of one


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(SCALE.parents[1])
    (tmp_path / "file").write_text("")
    assert main(["--config", "sweeps/smoke.yaml", "--folder", f"{tmp_path}/file"]) == 2
    assert "--folder" in (said := capsys.readouterr().err) and "cannot be a folder" in said
