"""No dead knob: every number and every switch of every shipped configuration changes what it is said to change.

Each configuration is shrunk to a toy world and a tiny model, keeping how its parts are put together (algorithm, passes,
minibatches, groups, a supervised stage or none), and run once as it is and once with each of its settings changed.
"""

from __future__ import annotations

import copy
import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import seed_everything

from lit_agents.algorithm.sft import SFT
from lit_agents.environment.toy import EchoWorld
from lit_agents.fit import main
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.sampling import Sampling
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.schedule import Limits
from lit_agents.run.cli import FitCLI
from tests.algorithm.trainers import QUIET, trainer
from tests.tiny import tiny_model_folder, tiny_tokenizer

pytestmark = QUIET
CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
QUICK = {CONF / "textworld" / "quickstart.yaml"}
"""The others are left to the slow suite."""

# shrinking

SHRUNK: dict[str, Any] = {
    "data.train_tasks": 8, "data.validation_tasks": 2, "data.test_tasks": 4, "data.schedule.tasks": 4,
    "data.schedule.micro_batch_tokens": 640, "data.limits.turns": 2, "data.limits.context": 160, "data.limits.concurrent": 8,
    "data.sampling.max_tokens": 6, "data.evaluation.max_tokens": 6, "data.sampling.temperature": 1.0,
    "model.warmup": 2, "model.policy.lora.last_layers": 1, "model.optimizer.lr": 0.01, "model.critic_lr": 0.05,
    "sft.demonstrations": 4, "sft.epochs": 1, "sft.minibatches": 2, "sft.optimizer.lr": 0.001,
    "trainer.max_epochs": 2, "trainer.check_val_every_n_epoch": 1, "trainer.devices": 1,
    "data.tasks": "r2-w2", "trainer.accelerator": "cpu", "trainer.strategy": "auto", "trainer.precision": "32-true",
    "model.policy.dtype": "float32", "data.limits.window.turns": 1, "data.limits.window.keep": 1,
}  # fmt: skip
"""Used where a configuration has the setting; minibatches and groups are cut to what the tasks allow."""


def leaves(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is neither a mapping nor a list, with its keys."""
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in pairs:
            yield from leaves(value, (*path, str(key)))
    else:
        yield path, content


def name_of(path: tuple[str, ...]) -> str:
    return ".".join(key for key in path if key != "init_args")


def put(content: Any, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        content = content[int(key) if isinstance(content, list) else key]
    content[path[-1]] = value


def settings(file: Path) -> dict[str, tuple[tuple[str, ...], Any]]:
    """The numbers and switches of a configuration, by name."""
    found = leaves(yaml.safe_load(file.read_text()))
    return {name_of(path): (path, value) for path, value in found if isinstance(value, bool | int | float)}


def shrunk(file: Path, weights: Path) -> dict[str, Any]:
    content = yaml.safe_load(file.read_text())
    content.pop("start_from", None)  # see test_fit.py
    for path, value in list(leaves(content)):
        name = name_of(path)
        put(content, path, SHRUNK.get(name, value))
        if name == "model.policy.weights":
            put(content, path, str(weights))
    schedule = content["data"]["schedule"]
    supervised = content["model"]["class_path"].endswith("SFT")
    if supervised:
        content["data"]["train_tasks"] = schedule["tasks"] = 8
    schedule["minibatches"] = min(schedule["minibatches"], 4)
    schedule["group_size"] = min(schedule["group_size"], 4)
    content["data"]["environment"] = {"class_path": "tests.integration.flaky.Sluggish"}
    for path, value in list(leaves(content["data"].get("reward", {}))):
        if str(value).startswith("lit_agents.reward.repair."):  # it needs tests
            put(content["data"]["reward"], path, "lit_agents.reward.dense.ScoreGain")
    spy = {"class_path": "tests.integration.spies.StepSpy", "init_args": {"path": "steps.jsonl"}}
    content["trainer"]["callbacks"] = [spy]
    return content


def shipped() -> list[Path]:
    """Those that differ when they are shrunk: of the others, one has the settings of all."""
    found: dict[str, Path] = {}
    for file in FILES:
        content = shrunk(file, Path("weights"))
        found.setdefault(json.dumps({k: v for k, v in content.items() if k != "name"}, sort_keys=True), file)
    return list(found.values())


# what there is to be seen


class Seen:
    """A run's folder, or what was said instead of a run."""

    def __init__(self, folder: Path, code: int) -> None:
        self.folder, self.code = folder, code
        run = folder / "run"
        lines = (run / "episodes.jsonl").read_text().splitlines() if (run / "episodes.jsonl").exists() else []
        self.episodes = [json.loads(line) for line in lines]
        self.rows: list[dict[str, str]] = []
        if (run / "metrics.csv").exists():
            with (run / "metrics.csv").open(newline="") as file:
                self.rows = list(csv.DictReader(file))
        spied = folder / "steps.jsonl"
        self.steps = [json.loads(line) for line in spied.read_text().splitlines()] if spied.exists() else []
        self.supervised = "SFT" in (folder / "config.yaml").read_text()

    def column(self, name: str) -> list[str]:
        """Of the stage that is the point of the configuration."""
        stage = "sft" if self.supervised else "rl"
        return [row.get(name, "") for row in self.rows if row["stage"] == stage]

    def of_phase(self, *phases: str) -> list[dict[str, Any]]:
        return [e for e in self.episodes if e["phase"] in phases]

    @property
    def played(self) -> list[dict[str, Any]]:
        """For training."""
        return self.of_phase("sft", "rl")

    def said(self, *phases: str) -> list[Any]:
        return [[turn["action_ids"] for turn in e["turns"]] for e in self.of_phase(*phases)]

    @property
    def windows(self) -> list[list[int]]:
        """Where the window of each turn starts."""
        return [[turn["window_start"] for turn in e["turns"]] for e in self.episodes]

    def weights(self, stage: str, part: str = "") -> str:
        path = self.folder / "run" / "checkpoints" / stage / "last.ckpt"
        state = torch.load(path, weights_only=True)["state_dict"]
        chosen = [state[name].float().numpy().tobytes() for name in sorted(state) if part in name]
        assert chosen
        return hashlib.sha256(b"".join(chosen)).hexdigest()

    @property
    def size(self) -> int:
        stage = "sft" if self.supervised else "rl"
        path = self.folder / "run" / "checkpoints" / stage / "last.ckpt"
        return sum(t.numel() for t in torch.load(path, weights_only=True)["state_dict"].values())

    @property
    def trained(self) -> str:
        return self.weights("sft" if self.supervised else "rl", "policy")

    @property
    def own_steps(self) -> list[dict[str, Any]]:
        return [step for step in self.steps if step["demonstrated"] == self.supervised]


Sight = Callable[[Seen], Any]


@dataclass(frozen=True)
class Knob:
    """What a setting becomes, and what must be seen to change by it."""

    value: Callable[[Any], Any]
    observable: Sight
    along: tuple[tuple[str, Any], ...] = ()
    """Other settings in both runs, to bring about a situation in which it matters."""


def to(value: Any) -> Callable[[Any], Any]:
    return lambda old: value


def times(factor: float) -> Callable[[Any], Any]:
    return lambda old: old * factor


def flipped(old: bool) -> bool:
    return not old


UNTAUGHT = (("sft", None),)  # at such limits no demonstration wins
CUT = (("data.limits.context", 60), *UNTAUGHT)
LONGER = (("data.tasks", "r4-w2"), ("data.limits.turns", 4), ("data.limits.context", 400))
"""Episodes that are longer than what is in sight."""
CURT = (("data.evaluation.max_tokens", 3),)
"""Actions that do not come to their end."""
REWARDED = Knob(times(2), lambda s: [e["rewards"] for e in s.episodes])
KNOBS: dict[str, Knob] = {
    "seed_everything": Knob(to(2), lambda s: s.said("rl", "test/base")),
    # data
    "data.train_tasks": Knob(times(2), lambda s: sorted({e["task"]["id"] for e in s.played})),
    "data.validation_tasks": Knob(to(3), lambda s: s.column("validation/n")),
    "data.test_tasks": Knob(to(5), lambda s: len(s.of_phase("test/base"))),
    "data.schedule.tasks": Knob(times(2), lambda s: len({e["task"]["id"] for e in s.played if e["iteration"] == 1})),
    "data.schedule.group_size": Knob(to(3), lambda s: s.column("rollout/n")),
    "data.schedule.passes": Knob(to(2), lambda s: s.column("step")),
    "data.schedule.minibatches": Knob(to(3), lambda s: s.column("step")),
    "data.schedule.micro_batch_tokens": Knob(
        to(160), lambda s: [step["nodes"] for step in s.own_steps], (("data.schedule.minibatches", 1),)
    ),
    "data.limits.turns": Knob(to(1), lambda s: max(len(e["turns"]) for e in s.episodes), UNTAUGHT),
    "data.limits.context": Knob(to(60), lambda s: [e["stop"] for e in s.episodes], UNTAUGHT),
    "data.limits.concurrent": Knob(to(3), lambda s: [(step["sessions"], step["cache"]) for step in s.own_steps]),
    "data.limits.window.turns": Knob(to(2), lambda s: s.windows, LONGER),
    "data.limits.window.keep": Knob(to(0), lambda s: s.windows, LONGER),
    "data.limits.step_timeout": Knob(to(0.01), lambda s: {e["stop"] for e in s.episodes} & {"environment_timeout"}),
    "data.sampling.temperature": Knob(to(0.4), lambda s: s.said("rl")),
    "data.sampling.max_tokens": Knob(to(3), lambda s: max(len(a) for e in s.said("rl") for a in e), UNTAUGHT),
    "data.evaluation.temperature": Knob(to(0.2), lambda s: s.said("test/base")),
    "data.evaluation.max_tokens": Knob(to(3), lambda s: max(len(a) for e in s.said("test/base") for a in e)),
    "data.reward.normalise": Knob(flipped, lambda s: s.column("rollout/return")),
    "data.reward.parts.0.reward.normalise": Knob(flipped, lambda s: [e["rewards"] for e in s.episodes]),
    "data.reward.parts.0.weight": REWARDED,
    "data.reward.parts.1.weight": REWARDED,
    "data.reward.parts.1.reward.cost": REWARDED,
    "data.reward.parts.2.weight": replace(REWARDED, along=CURT),
    "data.reward.parts.2.reward.cost": replace(REWARDED, along=CURT),
    "data.reward.parts.3.weight": replace(REWARDED, along=CURT),
    "data.reward.parts.3.reward.cost": replace(REWARDED, along=CURT),
    # model
    "model.optimizer.lr": Knob(times(0.1), lambda s: s.column("train/learning_rate")),
    "model.optimizer.weight_decay": Knob(to(0.5), lambda s: s.trained),
    "model.warmup": Knob(to(8), lambda s: s.column("train/learning_rate")),
    "model.anneal": Knob(flipped, lambda s: s.column("train/learning_rate")),
    "model.per_episode_mean": Knob(flipped, lambda s: s.trained),
    "model.divide_by_std": Knob(flipped, lambda s: s.column("train/policy_loss")),
    "model.clip": Knob(to(1e-4), lambda s: s.column("train/clip_fraction")),
    "model.dual_clip": Knob(to(1.0001), lambda s: s.trained),
    "model.gamma": Knob(to(0.5), lambda s: s.trained),
    "model.lam": Knob(to(0.3), lambda s: s.trained),
    "model.critic_lr": Knob(times(0.1), lambda s: s.weights("rl", "value_head")),
    "model.value_clip": Knob(to(1e-4), lambda s: s.column("train/value_loss")),
    "model.value_coef": Knob(to(0.1), lambda s: s.trained),
    "model.share_trunk": Knob(flipped, lambda s: s.trained),
    "model.bootstrap_truncated": Knob(flipped, lambda s: s.column("train/value_loss"), CUT),
    "model.kl.reward": Knob(times(20), lambda s: s.trained),
    "model.kl.loss": Knob(times(200), lambda s: s.trained),
    "model.policy.gradient_checkpointing": Knob(flipped, lambda s: max(step["kept"] for step in s.own_steps)),
    "model.policy.lora.rank": Knob(times(2), lambda s: s.size),
    "model.policy.lora.alpha": Knob(times(2), lambda s: s.trained),
    "model.policy.lora.last_layers": Knob(to(2), lambda s: s.size),
    # stages
    "sft.demonstrations": Knob(to(6), lambda s: len(s.of_phase("sft"))),
    "sft.epochs": Knob(to(2), lambda s: sum(row["stage"] == "sft" for row in s.rows)),
    "sft.minibatches": Knob(to(4), lambda s: [row["step"] for row in s.rows if row["stage"] == "sft"]),
    "sft.optimizer.lr": Knob(times(10), lambda s: s.weights("sft")),
    "sft.optimizer.weight_decay": Knob(to(0.5), lambda s: s.weights("sft")),
    "trainer.max_epochs": Knob(to(3), lambda s: len(s.column("step"))),
    "trainer.check_val_every_n_epoch": Knob(to(2), lambda s: s.column("validation/n")),
    "trainer.gradient_clip_val": Knob(to(0.01), lambda s: s.trained),
}  # fmt: skip
REFUSED = {("sft", f"data.{name}") for name in ("schedule.group_size", "limits.turns", "limits.context")}
"""A demonstration has no group, and has to win."""
ELSEWHERE = {"trainer.devices", "data.limits.reset_timeout"}
"""Seen without a run: below, and in test_failures.py."""
ELSEWHERE |= {
    f"data.environment.{name}" for name in ("help_level", "observation", "command_timeout", "episode_seconds")
}
"""Those of the world, which is another one here: test_swe.py."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that wins about half of the toy episodes, so that there is something to be learnt, and to be lost."""
    folder = tmp_path_factory.mktemp("knobs")
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    policy = CausalLMPolicy(str(tiny_model_folder(folder / "random")))
    data = RolloutDataModule(
        EchoWorld(), "r2-w2", limits=Limits(turns=2, context=160, concurrent=16), sampling=Sampling(max_tokens=6)
    )
    data.open(policy)
    try:
        sft = SFT(policy, lambda groups: torch.optim.AdamW(groups, lr=1e-2))
        trainer(max_epochs=17, limit_val_batches=0).fit(sft, datamodule=data.demonstrations(16, 4))
    finally:
        data.close()
    policy.hf.save_pretrained(folder / "half")
    tiny_tokenizer().save_pretrained(folder / "half")
    return folder / "half"


@pytest.fixture(scope="module")
def base(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Seen]:
    """The run of a configuration as it is, made once."""
    made: dict[Any, Seen] = {}

    def of(file: Path, along: tuple[tuple[str, Any], ...]) -> Seen:
        key = (file, along)
        if key not in made:
            made[key] = run(shrunk(file, weights), along, tmp_path_factory.mktemp("base"))
            assert made[key].code == 0
        return made[key]

    return of


def run(content: dict[str, Any], along: tuple[tuple[str, Any], ...], folder: Path) -> Seen:
    for name, value in along:
        if name == "sft":
            content["sft"] = value
            continue
        path = next(path for path, _ in leaves(content) if name_of(path) == name)
        put(content, path, value)
    for callback in content["trainer"]["callbacks"]:
        callback["init_args"]["path"] = str(folder / "steps.jsonl")
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    code = main(["--config", str(folder / "config.yaml"), "--run", str(folder / "run")])
    return Seen(folder, code)


def case(file: Path, name: str) -> Any:
    """Those of one file share what it does as it is, and so a process."""
    marks = [] if file in QUICK else [pytest.mark.slow, pytest.mark.parallel, pytest.mark.xdist_group(str(file))]
    return pytest.param(file, name, id=f"{file.relative_to(CONF)}-{name}", marks=marks)


def cases() -> list[Any]:
    """Every setting once for each algorithm, with and without a supervised stage; other files with it share that code."""
    chosen: dict[tuple[str, str, bool], tuple[Path, str]] = {}
    for file in sorted(shipped(), key=lambda file: file not in QUICK):
        content = yaml.safe_load(file.read_text())
        for name in settings(file):
            if name not in ELSEWHERE:
                chosen.setdefault((name, content["model"]["class_path"], "sft" in content), (file, name))
    return [case(file, name) for file, name in chosen.values()]


CASES = cases()


@pytest.mark.parametrize(("file", "name"), CASES)
def test_a_setting_changes_what_it_is_there_for(
    base: Callable[..., Seen], weights: Path, tmp_path: Path, file: Path, name: str, capfd
):
    assert name in KNOBS, f"{name} has no declared observable"
    knob = KNOBS[name]
    before = base(file, knob.along)
    content = copy.deepcopy(shrunk(file, weights))
    path = settings(file)[name][0]
    old = next(value for place, value in leaves(content) if place == path)
    new = knob.value(old)
    assert new != old
    put(content, path, type(old)(new) if isinstance(old, int) and not isinstance(old, bool) else new)
    if name == "data.schedule.tasks" and before.supervised:  # one demonstration of each task
        content["data"]["train_tasks"] = new
    if name == "data.train_tasks" and before.supervised:
        content["data"]["schedule"]["tasks"] = int(new)
    after = run(content, knob.along, tmp_path)
    if (file.stem.rpartition("_")[2], name) in REFUSED:  # a knob acts or raises, by its name
        assert after.code == 2 and name.rpartition(".")[2] in capfd.readouterr().err
        return
    assert after.code == 0
    assert knob.observable(after) != knob.observable(before), f"{name} changes nothing in {file.relative_to(CONF)}"


@pytest.mark.parametrize(
    "file", [file for file in shipped() if "trainer.devices" in settings(file)], ids=lambda f: str(f.relative_to(CONF))
)
def test_the_number_of_devices_is_the_number_of_processes_that_share_the_tasks(
    file: Path, weights: Path, tmp_path: Path
):
    found = []
    for devices in (1, 2):
        content = shrunk(file, weights)
        del content["trainer"]["callbacks"]
        content["trainer"] |= {"devices": devices, "strategy": "ddp"}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
        found.append(FitCLI(["--config", str(tmp_path / "config.yaml")]).machine()[1])
    assert found == [1, 2]


def test_every_declared_knob_is_one_that_is_shipped():
    named = {name for file in FILES for name in settings(file)}
    assert named <= set(KNOBS) | ELSEWHERE
    assert set(KNOBS) <= named
    assert named == {name for file in shipped() for name in settings(file)}
