"""Every configuration that is shipped: those for a CPU run one small iteration, the paper's are built as shapes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from transformers import Qwen2Config, Qwen3Config

from lit_agents.algorithm.base import AgentModule
from lit_agents.environment.alfworld.env import AlfWorld
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.errors import BadInput
from lit_agents.fit import fit, main
from lit_agents.policy import causal_lm
from lit_agents.run.cli import FitCLI
from lit_agents.run.pipeline import Run
from tests.shared_data import HOUSEHOLDS, shared_data

CONF = Path(__file__).parents[2] / "conf"
CPU = sorted(CONF.glob("*/*.yaml"))
TEXTWORLD = [path for path in CPU if path.parent.name == "textworld"]
ALIKE = re.compile("sparse|balanced|type|10-calls|40-calls")
"""Paper configurations that differ from another one in reward, tasks or turns alone are left to the slow suite."""
PAPER = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if ALIKE.search(path.stem) else [])
    for path in sorted(CONF.glob("*/paper/*.yaml"))
]

SLOW = {"alfworld/ppo.yaml", "alfworld/rloo.yaml", "swe/quickstart.yaml"}
"""Left to the slow suite: they differ from grpo.yaml in the algorithm, which others of these run, or make tasks first."""
SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
QWEN = {
    "Qwen/Qwen2.5-1.5B-Instruct": (dict(zip(SHAPE, (1536, 8960, 28, 12, 2), strict=True)), True, 1.54e9),
    "Qwen/Qwen2.5-7B-Instruct": (dict(zip(SHAPE, (3584, 18944, 28, 28, 4), strict=True)), False, 7.62e9),
    "Qwen/Qwen3-8B": (dict(zip(SHAPE, (4096, 12288, 36, 32, 8), strict=True)), False, 8.19e9),
}
"""Shape, whether the embeddings are tied, and the number of parameters their model cards give."""
VOCABULARY = {"Qwen/Qwen2.5-1.5B-Instruct": 151_936, "Qwen/Qwen2.5-7B-Instruct": 152_064, "Qwen/Qwen3-8B": 151_936}


def named(path: Path) -> str:
    return str(path.relative_to(CONF))


@pytest.fixture(scope="session")
def games(tmp_path_factory) -> Path:
    """Four games of each split that is needed, made once."""
    pytest.importorskip("textworld")
    folder = tmp_path_factory.mktemp("games")
    for split, count in (("train", 2), ("sft", 2), ("validation", 1), ("test", 1)):
        TextWorld(str(folder), workers=2).tasks("w2-o3-q4", split, count)
    return folder


@pytest.fixture(scope="session")
def households(tmp_path_factory) -> Path:
    """Official games, where they are at hand; others are made."""
    pytest.importorskip("alfworld", reason="the extra [alfworld] is not installed")
    folder = tmp_path_factory.mktemp("households")
    with suppress(pytest.skip.Exception):
        AlfWorld(str(folder), [str(shared_data(HOUSEHOLDS))]).install()
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=named(p), marks=[pytest.mark.slow] if named(p) in SLOW else []) for p in CPU],
)
def test_a_configuration_for_a_cpu_runs_one_small_iteration(path, tiny_weights, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    games = request.getfixturevalue("games" if path in TEXTWORLD else "households")
    if "tasks: official" in path.read_text():
        shared_data(HOUSEHOLDS)
    start = yaml.safe_load(path.read_text()).get("start_from")
    if start:  # another shipped configuration makes it, where it is looked for
        small(path.with_name("sft.yaml"), tiny_weights, games)
        assert Path(start).is_file()
    run = small(path, tiny_weights, games)
    assert list(run.results) == ["base", *stages_of(path)]
    with (run.folder.path / "metrics.csv").open(newline="") as file:
        assert [row["stage"] for row in csv.DictReader(file)] == stages_of(path)


def stages_of(path: Path) -> list[str]:
    """What a configuration trains."""
    if path.stem == "sft":
        return ["sft"]
    return ["sft", "rl"] if "sft" in yaml.safe_load(path.read_text()) else ["rl"]


def small(path: Path, weights: Path, games: Path) -> Run:
    """One iteration of a configuration with a tiny model and as few tasks as there can be."""
    content = yaml.safe_load(path.read_text())
    size = "1" if path.stem in ("sft", "ppo", "reinforce_pp") else "2"
    args = ["--model.policy.init_args.weights", str(weights), "--model.policy.init_args.dtype", "float32"]
    args += ["--model.policy.init_args.lora.last_layers", "1", "--data.environment.init_args.folder", str(games)]
    args += ["--data.train_tasks", "2", "--data.validation_tasks", "1", "--data.test_tasks", "1"]
    args += ["--data.schedule.tasks", "2", "--data.schedule.group_size", size, "--data.schedule.minibatches", "2"]
    # all turns, and as many tokens as the expert needs, or no demonstration wins
    said = "600" if path.parent.name == "swe" else "64"
    longest = said if "sft" in stages_of(path) else "4"
    args += ["--data.limits.concurrent", "4", "--data.sampling.max_tokens", longest]
    context = "4000" if path in TEXTWORLD else "6000"  # a token of the tiny model is a byte
    args += ["--data.evaluation.max_tokens", "4", "--data.limits.context", context]
    args += ["--sft.demonstrations", "2", "--sft.epochs", "1", "--sft.minibatches", "1"] if "sft" in content else []
    args += ["--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1", "--trainer.accelerator", "cpu"]
    return fit(["--config", str(path), *args])


def test_a_dense_reward_on_games_without_intermediate_score_is_refused(
    tiny_weights, games, capfd, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(causal_lm.CausalLMPolicy, "load", lambda *_: pytest.fail("a model was loaded"))
    args = ["--model.policy.init_args.weights", str(tiny_weights), "--data.environment.init_args.folder", str(games)]
    args += ["--data.train_tasks", "2", "--data.schedule.tasks", "2", "--data.schedule.minibatches", "1"]
    args += ["--data.reward", "lit_agents.reward.dense.ScoreGain"]
    assert main(["--config", str(CONF / "textworld" / "grpo.yaml"), *args]) == 2
    assert "reward ScoreGain: 2 of 2 tasks have no intermediate score" in capfd.readouterr().err


@pytest.fixture
def on_a_gpu_node(monkeypatch, tmp_path):
    """Parse and instantiate, with the model's folder replaced by its configuration alone."""

    def find(name: str) -> Path:
        shape, tied, _ = QWEN[name]
        folder = tmp_path / name
        if not folder.exists():
            kind = Qwen3Config if "Qwen3" in name else Qwen2Config
            kind(vocab_size=VOCABULARY[name], tie_word_embeddings=tied, **shape).save_pretrained(folder)
        return folder

    monkeypatch.setattr(causal_lm, "find_weights", find)
    return lambda path: FitCLI(["--config", str(path)])


@pytest.mark.parametrize("path", PAPER)
def test_a_configuration_of_the_paper_has_the_right_shapes(path, on_a_gpu_node):
    cli = on_a_gpu_node(path)
    module, data, trainer = cli.model, cli.datamodule, cli.value("trainer")
    family = "" if path.parts[-3] == "textworld" else f"{path.parts[-3]}-"
    assert isinstance(module, AgentModule) and cli.value("name") == family + path.stem
    module.policy.load("meta")
    name = module.policy.weights
    shape, _, parameters = QWEN[name]
    found = {n: p for n, p in module.policy.named_parameters() if "lora" not in n}
    assert sum(p.numel() for p in found.values()) == pytest.approx(parameters, rel=0.01)
    assert all(p.is_meta for p in found.values())
    assert (module.policy.config.hidden_size, module.policy.config.num_hidden_layers) == (
        shape["hidden_size"], shape["num_hidden_layers"],
    )  # fmt: skip
    trained = sum(p.numel() for p in module.policy.trainable.values())
    if module.policy.lora is None:
        assert trained == sum(p.numel() for p in found.values()) and module.policy.dtype == torch.float32
    else:
        assert 0.01 * parameters < trained < 0.05 * parameters
    gigabytes = (trained * 16 + (0 if module.policy.lora is None else 2 * parameters)) / 1e9  # weights, gradient, Adam
    assert gigabytes < 60, "must leave room for activations and caches on a GPU of 80 GB"

    schedule, ranks = data.schedule, trainer.devices
    schedule.check(module.compares_group, ranks, data.limits.context)
    assert (trainer.precision, trainer.strategy) == ("bf16-mixed", "ddp")
    if module.demonstrated:
        assert schedule.tasks == data.counts["train"] and schedule.tasks / schedule.minibatches == 8
        assert schedule.tasks % ranks == 0
        return
    assert schedule.tasks * schedule.group_size == (64 if family == "swe-" else 256)  # the paper's batch
    each = schedule.tasks // ranks * schedule.group_size
    assert schedule.tasks // ranks % schedule.minibatches == 0
    assert data.limits.concurrent <= each and schedule.tasks <= data.counts["train"]
    assert data.sampling.temperature == 0.7
    sft = cli.value("sft")
    assert sft is None or sft.demonstrations % ranks == 0


def test_the_readme_and_the_issue_name_no_configuration_that_is_not_there():
    assert {"quickstart", "sft", "ppo", "grpo", "rloo", "reinforce_pp"} <= {path.stem for path in TEXTWORLD}
    assert {"quickstart", "sft", "ppo", "grpo", "rloo"} <= {path.stem for path in CPU if path not in TEXTWORLD}
    rows = {path.id for path in PAPER}
    assert {f"w2-o3-q4_{name}" for name in ("ppo", "rloo", "grpo", "reinforce_pp")} | {"w4-o6-q8_ppo"} <= rows
    assert {"six-types_sft", "one-type_ppo", "four-types_ppo", "six-types_ppo"} <= rows
    assert {f"tw-simple-{r}_{a}" for r in ("sparse", "balanced", "dense") for a in ("ppo", "rloo")} <= rows


def test_all_configurations_for_a_cpu_share_world_and_model_so_that_one_evaluates_the_checkpoints_of_another():
    for family in {path.parent for path in CPU}:
        policies = [FitCLI(["--config", str(path)]).model.policy for path in family.glob("*.yaml")]
        assert len({(p.weights, p.dtype, p.lora, p.system) for p in policies}) == 1


def test_the_mixtures_of_the_paper_are_there(households: Path):
    """Table 7: one type, four and six, 1000 games each."""
    mixtures = {}
    for name in ("one-type", "four-types", "six-types"):
        data = yaml.safe_load((CONF / "alfworld" / "paper" / f"{name}_ppo.yaml").read_text())["data"]
        mixtures[name] = data["tasks"], data["train_tasks"], data["validation_tasks"], data["test_tasks"]
    assert {count for _, count, *_ in mixtures.values()} == {1000}
    shared_data(HOUSEHOLDS)
    world = AlfWorld(str(households))
    found = {
        name: world.tasks(spec, "train", 790 if name == "one-type" else 1000) for name, (spec, *_) in mixtures.items()
    }
    kinds = {name: Counter(task.labels["type"] for task in tasks) for name, tasks in found.items()}
    assert kinds["one-type"] == {"pick": 790} and kinds["four-types"] == dict.fromkeys(
        ("clean", "cool", "heat", "look"), 250
    )
    assert len(kinds["six-types"]) == 6 and all("/official/" in task.path for tasks in found.values() for task in tasks)
    for spec, _, validation, test in mixtures.values():
        assert len(world.tasks(spec, "validation", validation)) == validation
        assert len(world.tasks(spec, "test", test)) == test
        with pytest.raises(BadInput, match=r"has \d+ games for test"):
            world.tasks(spec.replace("mixed", "official"), "test", test + 1)  # that is all of them
