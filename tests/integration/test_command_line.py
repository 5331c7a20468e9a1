"""What is given on a command line: files over one another, another algorithm by one flag, null, whole names of flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import set_parsing_settings

from lit_agents import audit, export, tasks, tune
from lit_agents import fit as fit_command
from lit_agents.algorithm.base import AgentModule
from lit_agents.errors import BadInput
from lit_agents.report import __main__ as report_command
from lit_agents.run.cli import ExactLightningParser, FitCLI
from lit_agents.run.cli_errors import wrapped
from lit_agents.run.overrides import files_first, laid_over
from lit_agents.study.command_line import parsed, resolve
from lit_agents.study.launcher import Runs
from lit_agents.study.memory_room import Room
from lit_agents.system.yaml_text import read_yaml, write_yaml

CONF = Path(__file__).parents[2] / "conf"
SHIPPED = sorted([*CONF.glob("*/*.yaml"), *CONF.glob("*/paper/*.yaml")])
GRPO = str(CONF / "textworld" / "grpo.yaml")
ALGORITHMS = ("grpo.GRPO", "rloo.RLOO", "ppo.PPO", "reinforce_pp.ReinforcePP", "sft.SFT")
KEPT = ("policy", "optimizer", "clip", "dual_clip", "warmup", "anneal", "per_episode_mean")
KNOBS = {"grpo.GRPO": {"divide_by_std"}, "ppo.PPO": {"gamma", "lam", "critic_lr", "value_clip", "value_coef", "share_trunk",
         "bootstrap_truncated"}, "reinforce_pp.ReinforcePP": {"gamma"}, "rloo.RLOO": set(), "sft.SFT": set()}  # fmt: skip


def model_of(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text())["model"])


def distinct() -> list[Any]:
    """A shipped file for each ``model`` that is in them."""
    found = {yaml.safe_dump(model_of(path)): path for path in SHIPPED}
    return [pytest.param(path, id=f"{path.parts[-2]}-{path.stem}") for path in found.values()]


@pytest.fixture(scope="module")
def parser() -> ExactLightningParser:
    """Of the algorithm alone, as in the commands; theirs take longer to build."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    made = ExactLightningParser(exit_on_error=False)
    made.add_lightning_class_args(AgentModule, "model", subclass_mode=True)
    return made


@pytest.mark.parametrize("path", distinct())
def test_every_algorithm_takes_the_shared_settings_of_every_shipped_file_by_one_flag(path, parser):
    for algorithm in ALGORITHMS:
        (config,), left_out = files_first(["--config", str(path), "--model", f"lit_agents.algorithm.{algorithm}"])
        content = read_yaml(config.removeprefix("--config="))
        before = model_of(path)["init_args"]
        foreign = (
            set(before) - set(KEPT) - KNOBS[algorithm] - (set() if algorithm == "sft.SFT" else {"kl", "importance_cap"})
        )
        assert {sentence.split(":")[0] for sentence in left_out} == {f"model.{name}" for name in foreign}
        parsed = parser.parse_object({"model": content["model"]})
        assert parsed.model.class_path == f"lit_agents.algorithm.{algorithm}"
        kl = before.get("kl", {})
        try:
            module = parser.instantiate(parsed).model
        except ValueError as error:
            assert algorithm == "grpo.GRPO" and kl.get("reward"), error
            assert str(wrapped(error)).startswith("model.kl.reward: GRPO compares returns without KL")
            continue
        assert type(module).__name__ == algorithm.split(".")[1]
        policy = before["policy"]["init_args"]
        for name, value in (policy.get("lora") or {}).items():
            assert getattr(module.policy.lora, name) == value
        assert (module.policy.lora is None) == (policy.get("lora") is None)
        assert module.optimizer([{"params": [torch.zeros(1)]}]).defaults["lr"] == before["optimizer"]["init_args"]["lr"]
        for name in set(KEPT[2:]) & set(before):
            assert getattr(module, name) == before[name]


@pytest.fixture
def overlay(tmp_path) -> Path:
    """A small file that names another algorithm."""
    (tmp_path / "rloo.yaml").write_text("model: {class_path: lit_agents.algorithm.rloo.RLOO}\n")
    return tmp_path / "rloo.yaml"


@pytest.mark.parametrize("form", ["--model", "--model.class_path", "--model=", "--config", "yaml"])
def test_every_form_of_the_change_reaches_the_command_and_names_what_is_left_out(form, overlay, capsys):
    value = str(overlay) if form == "--config" else "lit_agents.algorithm.rloo.RLOO"
    args = ["--model", f"{{class_path: {value}, init_args: {{clip: 0.3}}}}"] if form == "yaml" else [form, value]
    cli = FitCLI(["--config", GRPO, *([form + value] if form.endswith("=") else args), "--model.warmup", "3"])
    assert type(cli.model).__name__ == "RLOO" and cli.model.warmup == 3
    assert cli.model.clip == (0.3 if form == "yaml" else 0.2) and cli.model.per_episode_mean
    lora = cli.model.policy.lora
    assert lora is not None and (lora.rank, lora.alpha, lora.last_layers) == (16, 32, 15)
    assert capsys.readouterr().err == "model.divide_by_std: false is left out: RLOO has no such setting.\n"


@pytest.mark.parametrize(
    "flag", ["--model.policy.init_args.lora", "--model.policy.lora", "--model.init_args.policy.init_args.lora="]
)
def test_lora_null_is_a_flag(flag):
    args = [f"{flag}null"] if flag.endswith("=") else [flag, "null"]
    policy = FitCLI(["--config", GRPO, *args, "--model.policy.dtype", "float32"]).model.policy
    assert policy.lora is None and policy.weights == "packaged:SmolLM2-135M-Instruct"


def test_null_clears_what_was_said_before_it_and_no_more():
    def lora(*flags: str) -> Any:
        return FitCLI(["--config", GRPO, *flags, "--model.policy.dtype", "float32"]).model.policy.lora

    assert lora("--model.policy.lora.rank", "3", "--model.policy.lora", "null") is None
    later = lora("--model.policy.lora", "null", "--model.policy.lora.rank", "3")
    assert later is not None and (later.rank, later.last_layers) == (3, None)
    whole = lora("--model.policy.lora.last_layers", "null")
    assert (whole.rank, whole.last_layers) == (16, None)


def test_settings_win_over_files_wherever_they_stand(overlay):
    args, _ = files_first(["--data.train_tasks", "9", "--config", GRPO, "--config", str(overlay), "--sft.epochs=2"])
    assert [arg.split("=")[0] for arg in args] == ["--config", "--data.train_tasks", "--sft.epochs"]
    assert FitCLI(["--data.train_tasks", "96", "--config", GRPO]).datamodule.counts["train"] == 96


def test_a_file_over_another_changes_what_it_names():
    left_out: list[str] = []
    below = read_yaml(Path(GRPO).read_text())
    above = read_yaml(
        "model: {policy: {lora: {rank: 4}}, optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1e-2}}}\n"
        "data: {reward: lit_agents.reward.outcome.Outcome}\nsft: null"
    )
    merged = laid_over(below, above, left_out)
    inner = merged["model"]["init_args"]
    assert inner["policy"]["init_args"]["lora"] == {"rank": 4, "alpha": 32, "last_layers": 15}
    assert inner["optimizer"] == {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "weight_decay": 0.0}}
    assert merged["data"]["reward"]["class_path"] == "lit_agents.reward.outcome.Outcome" and merged["sft"] is None
    assert [sentence.split(":")[0] for sentence in left_out] == ["data.reward.parts"]


@pytest.mark.parametrize("name", ["nowhere.yaml", "broken.yaml", "list.yaml", "."])
def test_a_second_file_that_cannot_be_read_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text("data: [")
    Path("list.yaml").write_text("[1]")
    with pytest.raises(BadInput, match=rf"--config {name}: "):
        files_first(["--config", GRPO, "--config", name])


@pytest.mark.parametrize(
    "args", [("--seed_every", "2"), ("--data.train_task", "9"), ("--model.kl.rew", "0.1"), ("--conf", GRPO)]
)
def test_an_abbreviation_is_no_setting_of_a_run(args, capsys):
    taken = ("--name", "a/b")  # refused later, so that nothing runs where the abbreviation is taken
    assert fit_command.main(["--config", GRPO, *taken, *args]) == 2
    assert "there is no such" in (said := capsys.readouterr().err) or "unrecognized arguments" in said


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (tune, ("--conf", "sweeps/smoke.yaml")),
        (tasks, ("lit_agents.environment.toy.EchoWorld", "--sp", "r2-w2", "--count", "2")),
        (audit, ("run", "--toler", "1")),
        (export, ("a.ckpt", "folder", "--dty", "float32")),
        (report_command, ("run", "--out", "folder")),
    ],
)
def test_an_abbreviation_is_no_setting_of_another_command(command, args, capsys):
    try:
        assert command.main(list(args)) == 2
    except SystemExit as stop:
        assert stop.code == 2
    assert (abbreviated := next(a for a in args if a.startswith("--"))) in (said := capsys.readouterr().err)
    assert "unrecognized arguments" in said or f"{abbreviated}: there is no such argument" in said


def test_no_parser_of_the_project_takes_abbreviations():
    root = CONF.parent
    for path in (p for folder in ("lit_agents", "scripts", "benchmarks") for p in (root / folder).rglob("*.py")):
        for place in path.read_text().split("argparse.ArgumentParser(")[1:]:
            assert "allow_abbrev=False" in place[:300], path


@pytest.mark.parametrize(
    "text", ["1e-3", "1E5", "-2e4", ".5", "1.5.2", "1:30.5", "2026-01-01", "null", "yes", "0x1F", ".inf"]
)
def test_a_file_is_read_as_the_parser_reads_it_and_text_stays_text(text):
    from jsonargparse import get_loader

    assert read_yaml(f"a: {text}") == get_loader("yaml")(f"a: {text}")
    assert read_yaml(write_yaml({"a": text})) == {"a": text}


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1.0e-3"])
def test_a_file_of_a_study_may_write_numbers_as_a_run_reads_them(toy, number):
    Path(toy).write_text(Path(toy).read_text().replace("lr: 1.0e-3", f"lr: {number}"))
    Path("over.yaml").write_text(f"sft: {{optimizer: {{init_args: {{lr: {number}}}}}}}")
    Path("study.yaml").write_text(
        f"name: s\nbase: [{toy}]\nover: [over.yaml]\nfactors: {{decay: {{flag: model.init_args.optimizer.init_args.weight_decay,"
        f" values: [{number}, 0.1]}}}}\n"
    )
    study, _ = parsed(["--config", "study.yaml"])
    found = Runs(Path("s"), resolve, Room(1)).resolved(study.configuration({"decay": 1e-3}, 1)).config
    optimizer = found["model"]["init_args"]["optimizer"]["init_args"]
    assert (optimizer["lr"], optimizer["weight_decay"], found["sft"]["optimizer"]["init_args"]["lr"]) == (
        1e-3,
        1e-3,
        1e-3,
    )
