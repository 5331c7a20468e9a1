"""The training command, whole: what it leaves behind, and what continues it."""

from __future__ import annotations

import csv
import json
from functools import wraps
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.ppo import PPO
from lit_agents.audit import main as audit_main
from lit_agents.environment.toy import CorridorWorld
from lit_agents.evaluation.result import Result
from lit_agents.fit import fit, main
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.run.callbacks.recorder import EpisodeRecorder
from lit_agents.run.folder import Mark, RunFolder
from lit_agents.run.metrics_file import MetricsFile
from tests.integration.conftest import ONE_ITERATION


def rows(run: str | Path) -> list[dict[str, str]]:
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith(("_seconds", "/s"))} for row in csv.DictReader(file)]


def episodes(run: str | Path) -> list[dict]:
    return [json.loads(line) for line in (Path(run) / "episodes.jsonl").read_text().splitlines()]


def weights(run: str | Path, stage: str = "rl") -> dict[str, torch.Tensor]:
    return torch.load(Path(run) / "checkpoints" / stage / "last.ckpt", weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_demonstrations_that_do_not_win_are_paid_for_and_not_imitated(toy, capfd):
    world = [
        "--data.environment",
        "lit_agents.environment.toy.CorridorWorld",
        "--data.tasks",
        "n9",
        "--data.limits.turns",
        "3",
    ]
    fit(["--config", toy, *world, "--data.reward", "null", "--trainer.max_epochs", "0"])
    lost = sum(task.rewards > 3 for task in CorridorWorld().tasks("n9", "sft", 16))  # cells to the door
    ledger = json.loads(Path("runs/toy-1/ledger.json").read_text())
    assert 0 < lost < 16 and (ledger["demonstrations"], ledger["demonstrations_lost"]) == (16, lost)
    trained = [json.loads(line) for line in Path("runs/toy-1/trained.jsonl").read_text().splitlines()]
    assert len([row for row in trained if row["iteration"] == 1]) == 16 - lost
    assert f"sft: {lost} demonstrations did not win" in capfd.readouterr().out


def test_a_run_leaves_everything_that_was_promised(toy, capfd):
    run = fit(["--config", toy])
    path = Path("runs/toy-1")
    assert run.folder.path == path
    files = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    assert files == {
        "config.yaml", "metrics.csv", "episodes.jsonl", "trained.jsonl", "ledger.json", "summary.json", "curve.png",
        "run.lock", "checkpoints/sft/last.ckpt", "checkpoints/rl/last.ckpt", "checkpoints/rl/best.ckpt",
    }  # fmt: skip
    summary = json.loads((path / "summary.json").read_text())
    assert list(summary["success"]) == ["base", "sft", "rl"]
    for result in summary["success"].values():
        assert {"rate", "n", "low", "high", "conditions"} <= result.keys()
        assert {"split", "turn_limit", "sampling", "seed", "environment"} <= result["conditions"].keys()
    ledger = json.loads((path / "ledger.json").read_text())
    assert (ledger["demonstrations"], ledger["episodes"]) == (16, 3 * 8)
    assert {"sft", "rl", "test/base", "test/sft", "test/rl", "collecting"} <= ledger["seconds"].keys()
    found = episodes(path)
    phases = {phase: sum(e["phase"] == phase for e in found) for phase in dict.fromkeys(e["phase"] for e in found)}
    assert phases == {"test/base": 4, "sft": 16, "test/sft": 4, "rl": 24, "validation": 4, "test/rl": 4}
    turn = next(e for e in found if e["phase"] == "rl")["turns"][0]
    assert {
        "observation_ids",
        "action_ids",
        "action_logprobs",
        "policy_version",
        "observation",
        "action",
        "signals",
    } <= set(turn)
    assert len(turn["action_ids"]) == len(turn["action_logprobs"])
    assert [(r["stage"], r["iteration"]) for r in rows(path)] == [("sft", str(i)) for i in range(1, 7)] + [
        ("rl", "1"), ("rl", "2"), ("rl", "3"),
    ]  # fmt: skip
    out, err = capfd.readouterr()
    assert err == ""  # neither Lightning nor transformers has anything to say
    assert len([line for line in out.splitlines() if line.startswith(("sft ", "rl "))]) == 9


def test_the_progress_line_shows_the_iteration_it_names(toy, capfd):
    fit(["--config", toy, "--trainer.max_epochs", "2"])
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith(("sft ", "rl "))]
    for line, row in zip(lines, rows("runs/toy-1"), strict=True):
        assert f"entropy {float(row['train/entropy']):.3f}" in line
        assert "tokens/s" in line and "min left" in line


def test_rollouts_carry_the_number_of_steps_behind_them(toy):
    fit(["--config", toy])
    versions = {(e["phase"], e["iteration"]): {t["policy_version"] for t in e["turns"]} for e in episodes("runs/toy-1")}
    assert versions["sft", 1] == {-1} and versions["test/base", 0] == {0} and versions["test/sft", 0] == {24}
    assert [versions["rl", i] for i in (1, 2, 3)] == [{0}, {1}, {2}]


def test_a_finished_run_resumed_only_prints_its_table_again(toy):
    first = fit(["--config", toy]).results
    before = {p: p.read_bytes() for p in Path("runs").rglob("*") if p.suffix in (".jsonl", ".csv", ".ckpt", ".yaml")}
    again = fit(["--config", "runs/toy-1/config.yaml", "--ckpt_path", "last"])
    assert again.results == first
    assert {p: p.read_bytes() for p in before} == before


def test_a_run_goes_on_from_its_last_checkpoint_to_the_same_end(toy):
    fit(["--config", toy, "--run", "whole"])
    fit(["--config", toy, "--run", "parts", "--trainer.max_epochs", "2"])
    with (Path("parts") / "episodes.jsonl").open("a") as file:
        file.write('{"phase": "rl", "written": "after the checkpoint"}\n')
    run = fit(["--config", toy, "--run", "parts", "--ckpt_path", "last"])
    assert run.results["rl"] == fit(["--config", toy, "--run", "whole", "--ckpt_path", "last"]).results["rl"]
    assert same(weights("parts"), weights("whole"))
    assert rows("parts") == rows("whole")
    assert episodes("parts") == episodes("whole")
    assert (Path("parts") / "config.1.yaml").exists()  # it was configured for two iterations before


def test_a_checkpoint_of_the_supervised_stage_begins_rl_again(toy):
    fit(["--config", toy, "--run", "run"])
    before, whole = weights("run"), episodes("run")
    spent = json.loads(Path("run/ledger.json").read_text())["seconds"]
    fit(["--config", toy, "--ckpt_path", "run/checkpoints/sft/last.ckpt"])
    again = json.loads(Path("run/ledger.json").read_text())["seconds"]  # of tests that no checkpoint of SFT knows of
    assert spent["test/sft"] > 0 and all(again[part] == spent[part] for part in ("test/base", "test/sft"))
    assert same(weights("run"), before)
    assert episodes("run") == whole


def test_a_run_begins_where_another_one_ended_and_bears_its_costs(toy):
    sft = fit(["--config", toy, "--run", "sft", "--trainer.max_epochs", "0"])
    start = str(Path("sft/checkpoints/sft/last.ckpt").absolute())
    alone = ["--config", toy, "--sft", "null", "--start_from", start, "--keep_weights", "1"]
    run = fit([*alone, "--run", "whole"])
    assert list(run.results) == ["base", "rl"]
    assert run.results["base"] == sft.results["sft"]
    assert not [e for e in episodes("whole") if e["phase"] == "test/base"]  # taken over
    # under other conditions the start is measured again
    other = fit([*alone, "--run", "other", "--trainer.max_epochs", "2", "--data.evaluation.temperature", "0.5"])
    assert [e["phase"] for e in episodes("other")].count("test/base") == 4
    assert other.results["base"].conditions.sampling["temperature"] == 0.5
    told = [
        "--model.policy.init_args.system",
        "Answer.",
        "--trainer.max_epochs",
        "0",
        "--trainer.check_val_every_n_epoch",
        "1",
    ]
    fit([*alone, "--run", "told", *told])
    assert [e["phase"] for e in episodes("told")].count("test/base") == 4
    summary = json.loads(Path("sft/summary.json").read_text())
    del summary["measured"]
    Path("sft/summary.json").write_text(json.dumps(summary))
    again = fit([*alone, "--run", "again", "--trainer.max_epochs", "2"])
    assert again.results["base"] == sft.results["sft"]
    said = [[[t["action_ids"] for t in e["turns"]] for e in episodes(name) if e["phase"] == phase]
            for name, phase in (("again", "test/base"), ("sft", "test/sft"), ("sft", "test/base"))]  # fmt: skip
    assert said[0] == said[1] != said[2]
    ledger = json.loads(Path("whole/ledger.json").read_text())
    assert (ledger["demonstrations"], ledger["episodes"]) == (16, 24) and ledger["seconds"]["sft"] > 0
    # RL is the same as if both stages had been one run
    fit(["--config", toy, "--run", "both"])
    assert same(weights("whole"), weights("both"))
    assert [e for e in episodes("whole") if e["phase"] == "rl"] == [e for e in episodes("both") if e["phase"] == "rl"]
    fit([*alone, "--run", "parts", "--trainer.max_epochs", "2"])
    Path("sft").rename("moved")  # a run that goes on has all that it needs
    fit([*alone, "--run", "parts", "--ckpt_path", "last"])
    Path("moved").rename("sft")
    assert same(weights("parts"), weights("whole"))
    assert json.loads(Path("parts/ledger.json").read_text())["demonstrations"] == 16
    assert audit_main(["whole"]) == 0
    assert json.loads(Path("whole/summary.json").read_text())["start_from"] == start
    assert f"start_from: {start}" in Path("whole/config.yaml").read_text()


def test_the_untouched_model_can_be_the_reference_of_a_run_that_begins_with_another_one(toy):
    fit(["--config", toy, "--run", "sft", "--trainer.max_epochs", "0"])
    start = ["--sft", "null", "--start_from", "sft/checkpoints/sft/last.ckpt"]
    kl = {}
    for name, more in (("base", start), ("start", start), ("both", [])):
        reference = ["--model.kl.loss", "0.01", "--model.kl.reference", "start" if name == "start" else "base"]
        fit(["--config", toy, *more, *reference, "--run", name, *ONE_ITERATION])
        kl[name] = float(rows(name)[-1]["rollout/kl"])
    assert kl["base"] == kl["both"] > 0.1 and kl["start"] == pytest.approx(0, abs=1e-3)


def test_a_run_without_a_checkpoint_begins_again_in_its_folder(toy):
    run = fit(["--config", toy, "--run", "run"])
    for path in Path("run/checkpoints").rglob("*.ckpt"):
        path.unlink()
    summary = json.loads(Path("run/summary.json").read_text())
    for name in ("sft", "rl"):
        del summary["success"][name], summary["written"][name]
    Path("run/summary.json").write_text(json.dumps(summary))
    again = fit(["--config", toy, "--run", "run", "--ckpt_path", "last"])
    assert again.results == run.results
    assert [e["phase"] for e in episodes("run")].count("test/base") == 4
    assert len(rows("run")) == 9


@pytest.mark.parametrize("algorithm", ["ppo.PPO", "rloo.RLOO", "reinforce_pp.ReinforcePP"])
def test_every_algorithm_trains(toy, algorithm):
    args = ["--model", f"lit_agents.algorithm.{algorithm}", "--model.kl.reward", "0.01", *ONE_ITERATION]
    fit(["--config", toy, *args])
    assert float(rows("runs/toy-1")[-1]["rollout/kl"]) == pytest.approx(0, abs=1e-3)
    assert not same(weights("runs/toy-1"), weights("runs/toy-1", "sft"))


def test_a_world_that_breaks_costs_that_attempt_and_is_counted(toy):
    """In its first played episode every task breaks: of each demonstration, of each group, and of the first tests."""
    world = ["--data.environment", "tests.integration.flaky.FlakyEcho", "--data.environment.init_args.folder", "seen"]
    run = fit(["--config", toy, *world, *ONE_ITERATION, "--data.reward", "null"])
    broken = [e for e in episodes(run.folder.path) if e["stop"] == "environment_crash"]
    assert all(e["rewards"] is None and "the lights went out" in e["error"] for e in broken)
    phases = [e["phase"] for e in broken]
    assert [phases.count(phase) for phase in ("sft", "rl", "test/sft", "test/rl")] == [16, 2, 4, 0]
    row = rows(run.folder.path)[-1]
    assert (row["stage"], row["rollout/failures"], row["rollout/failure/environment_crash"]) == ("rl", "2.0", "2.0")
    assert row["rollout/n"] == "8.0" and row["rollout/groups_dropped"] == "0.0"
    ledger = json.loads((run.folder.path / "ledger.json").read_text())
    assert (ledger["demonstrations"], ledger["episodes"], ledger["failed_episodes"]) == (16, 8, 16 + 2)
    assert [(run.results[stage].failures, run.results[stage].n) for stage in ("sft", "rl")] == [(4, 4), (0, 4)]


@pytest.mark.parametrize(("split", "where"), [("validation", "validation"), ("test", "test after rl")])
def test_a_world_that_breaks_whatever_is_measured_stops_the_run_which_can_go_on(toy, capfd, split: str, where: str):
    name = "--data.environment"
    world = [name, "tests.integration.flaky.Dark", f"{name}.init_args.split", split, f"{name}.init_args.folder", "."]
    command = ["--config", toy, *world, *ONE_ITERATION, "--data.reward", "null", "--run", "run"]
    assert main(command) == 2
    error = capfd.readouterr().err
    assert f"error: data.environment: 12 of 12 episodes of {where} failed ({{'environment_crash': 12}})" in error
    assert "the lights went out" in error and "rl" not in json.loads(Path("run/summary.json").read_text())["success"]
    Path("mended").touch()
    assert list(fit([*command, "--ckpt_path", "last"]).results) == ["base", "sft", "rl"]


def test_a_run_whose_folder_was_moved_still_knows_its_best_checkpoint(toy):
    """All validations are equal, and the earliest one counts."""
    command = [
        "--config",
        toy,
        "--model.init_args.optimizer.init_args.lr",
        "1e-9",
        "--trainer.check_val_every_n_epoch",
        "1",
    ]
    fit([*command, "--run", "run", "--trainer.max_epochs", "2"])
    best = json.loads(Path("run/summary.json").read_text())["measured"]["rl"]
    Path("run").rename("elsewhere")
    fit([*command, "--run", "elsewhere", "--ckpt_path", "last"])
    assert json.loads(Path("elsewhere/summary.json").read_text())["measured"]["rl"]["steps"] == best["steps"] == 1


def test_a_run_that_goes_on_has_no_result_until_it_is_tested_again(toy, monkeypatch):
    fit(["--config", toy, "--run", "run", *ONE_ITERATION])
    assert list(json.loads(Path("run/summary.json").read_text())["success"]) == ["base", "sft", "rl"]
    monkeypatch.setattr(EpisodeRecorder, "on_train_epoch_end", _interrupted)
    longer = ["--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "1"]
    assert main(["--config", toy, *longer, "--run", "run", "--ckpt_path", "last"]) == 130
    summary = json.loads(Path("run/summary.json").read_text())
    for part in ("success", "measured", "written"):
        assert "rl" not in summary[part] and "sft" in summary[part]


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_last_is_that_of_the_last_stage_whatever_a_copy_made_of_the_times(toy):
    fit(["--config", toy, "--run", "run", *ONE_ITERATION])
    Path("run/checkpoints/sft/last.ckpt").touch()
    folder, checkpoint = RunFolder.reopen("toy", "run", "last")
    folder.release()
    assert checkpoint == Path("run/checkpoints/rl/last.ckpt")


def test_a_critic_is_begun_with_too(toy):
    ppo = ["--config", toy, "--model", "lit_agents.algorithm.ppo.PPO", *ONE_ITERATION]
    fit([*ppo, "--run", "first"])
    path = Path("first/checkpoints/rl/last.ckpt")
    content = torch.load(path, weights_only=True)
    content["state_dict"]["value_head.outer.bias"].fill_(3.0)
    torch.save(content, path)
    run = fit(
        [*ppo, "--run", "second", "--sft", "null", "--start_from", str(path), "--model.init_args.critic_lr", "1e-9"]
    )
    assert isinstance(run.cli.model, PPO) and run.cli.model.value_head is not None
    assert float(run.cli.model.value_head.outer.bias.detach()) == pytest.approx(3.0, abs=1e-3)


def test_the_supervised_stage_can_be_all_there_is(toy):
    args = ["--model", "lit_agents.algorithm.sft.SFT", "--sft", "null", "--data.schedule.tasks", "8"]
    assert main(["--config", toy, *args, "--data.schedule.group_size", "1", "--data.schedule.minibatches", "4"]) == 0
    assert [r["stage"] for r in rows("runs/toy-1")] == ["sft"] * 3
    summary = json.loads(Path("runs/toy-1/summary.json").read_text())
    assert list(summary["success"]) == ["base", "sft"]
    assert Path("runs/toy-1/curve.png").exists()
    assert main(["--config", toy, *args]) == 2  # groups of four equal demonstrations


def test_rl_can_be_all_there_is_and_can_be_nothing(toy):
    assert list(fit(["--config", toy, "--sft", "null", *ONE_ITERATION]).results) == ["base", "rl"]
    assert list(fit(["--config", toy, "--sft", "null", "--trainer.max_epochs", "0"]).results) == ["base"]
    assert not Path("runs/toy-2/curve.png").exists()


def test_overrides_on_the_command_line_win_over_the_file(toy):
    fit(["--config", toy, "--sft", "null", "--data.schedule.tasks", "4", *ONE_ITERATION])
    assert [r["rollout/n"] for r in rows("runs/toy-1")] == ["16.0"]


def test_tensorboard_and_wandb_get_the_numbers_too(toy, monkeypatch, tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "loggers.yaml").write_text(
        "trainer: {logger: [{class_path: lightning.pytorch.loggers.TensorBoardLogger, init_args: {save_dir: logs}}]}"
    )
    fit(["--config", toy, "--config", "loggers.yaml", *ONE_ITERATION])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags: set[str] = set()
    for file in Path("logs").rglob("events.*"):
        tags |= set(EventAccumulator(str(file)).Reload().Tags()["scalars"])
    assert {"rollout/success", "train/entropy", "train/nll"} <= tags
    assert len(rows("runs/toy-1")) == 7


@pytest.mark.slow
def test_wandb_works_offline_beside_the_table(toy, monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "loggers.yaml").write_text(
        "trainer: {logger: {class_path: lightning.pytorch.loggers.WandbLogger, init_args: {save_dir: logs, project: toy}}}"
    )
    Path("logs").mkdir()
    fit(["--config", toy, "--config", "loggers.yaml", *ONE_ITERATION, "--sft", "null"])
    import wandb

    wandb.finish()
    assert list(Path("logs").rglob("*.wandb"))
    assert len(rows("runs/toy-1")) == 1


def test_rows_gain_columns_on_the_right_and_are_cut_from_the_end(tmp_path):
    table = MetricsFile(tmp_path / "metrics.csv")
    table.add("sft", 1, 2, {"b": 0.1})
    table.add("rl", 1, 3, {"a": 1 / 3})
    table = MetricsFile(tmp_path / "metrics.csv")
    assert table.rows == [
        {"stage": "sft", "iteration": "1", "step": "2", "b": "0.1"},
        {"stage": "rl", "iteration": "1", "step": "3", "a": "0.3333333333333333"},
    ]
    table.cut(1)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["stage,iteration,step,b", "sft,1,2,0.1"]


def test_run_folders_are_numbered_and_marks_are_ordered_by_time(toy):
    assert RunFolder.find("x", None).path == Path("runs/x-1")
    for number in (2, 10):
        Path(f"runs/x-{number}").mkdir(parents=True)
    assert RunFolder.find("x", None).path == Path("runs/x-11")
    assert Mark(2, 10) < Mark(3, 10) < Mark(3, 11)


def test_a_process_that_another_one_started_writes_nothing_and_takes_its_folder(toy, monkeypatch, tmp_path):
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setenv("LIT_AGENTS_RUN", str(tmp_path / "shared"))
    folder = RunFolder.find("toy", None)
    folder.create()
    folder.metrics.add("rl", 1, 1, {"a": 1.0})
    folder.write_json("summary.json", {})
    assert folder.path == tmp_path / "shared" and not folder.path.exists()


def test_a_result_survives_the_file_it_is_written_to(toy):
    result = fit(["--config", toy, "--sft", "null", "--trainer.max_epochs", "0"]).results["base"]
    assert Result.from_json(json.loads(json.dumps(result.as_json()))) == result


def test_mixed_precision_is_that_of_the_sampler_too(toy):
    for precision in ("32-true", "bf16-mixed"):
        fit(["--config", toy, "--run", precision, "--trainer.precision", precision, *ONE_ITERATION])
    assert rows("32-true")[-1]["rollout/return"] and rows("32-true") != rows("bf16-mixed")
    assert float(rows("bf16-mixed")[-1]["train/logprob_gap"]) < 1e-3
    assert main(["--config", toy, "--trainer.precision", "bf16-true"]) == 2


def test_the_engine_rests_while_the_trainer_works_and_is_closed_at_the_end(toy, monkeypatch):
    happened: list[str] = []

    def note(cls: type, name: str) -> None:
        original = getattr(cls, name)

        @wraps(original)  # Lightning looks at the signature
        def noted(*args, **kwargs):
            happened.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(cls, name, noted)

    for name in ("generate", "rest", "close"):
        note(TransformersEngine, name)
    note(AgentModule, "training_step")
    note(ModelCheckpoint, "on_validation_end")
    fit(["--config", toy, *ONE_ITERATION])
    events = [name for name, _ in groupby(happened)]
    for before, now in pairwise(events):
        assert now not in ("training_step", "on_validation_end") or before != "generate", events
    assert {"generate", "rest", "training_step", "on_validation_end"} <= set(events) and events[-1] == "close"
