"""kill -9 at any moment: the same command with ``--ckpt_path last`` ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import csv
import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_agents.environment.textworld.env import TextWorld
from lit_agents.errors import BadInput
from lit_agents.run import folder as run_folder
from lit_agents.run.folder import RunFolder
from tests.integration.conftest import TOY
from tests.integration.zygote import MOMENTS, Zygote

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks for open files in /proc")

# everything that a run carries from one iteration to the next: moments of the optimizer, a schedule, a reference, an adaptive
# coefficient, a best checkpoint, a ledger
ARGS = ("--model", "lit_agents.algorithm.rloo.RLOO", "--model.kl", "{reward: 0.05, target: 0.001, horizon: 20}",
        "--model.anneal", "true", "--model.warmup", "2", "--keep_weights", "2", "--trainer.max_epochs", "8",
        "--data.schedule.passes", "2", "--data.schedule.resample_rounds", "1")  # fmt: skip


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="module")
def config(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kill") / "toy.yaml"
    path.write_text(TOY.format(weights=tiny_weights))
    return path


@pytest.fixture(scope="module")
def whole(config: Path, zygote: Zygote) -> tuple[Path, float]:
    """The run that nobody stops, and how long it takes."""
    folder = config.parent / "whole"
    status, seconds = zygote.run("--config", str(config), *ARGS, "--run", str(folder), watch=str(folder))
    assert status == 0
    return folder, seconds


def without_clock(content: Any) -> Any:
    """Without what depends on the time or on the folder's name, and what Lightning keeps but never reads again."""
    if isinstance(content, dict):
        left_out = ["current_score", "seconds", "dirpath", "best_model_path", "last_model_path"]
        left_out += ["kth_best_model_path", "best_k_models"]
        return {
            k: without_clock(v) for k, v in content.items() if k not in left_out and not k.endswith(("_seconds", "/s"))
        }
    return content


def numbers(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [without_clock(row) for row in csv.DictReader(file)]


def equal(a: Any, b: Any) -> bool:
    """Bit for bit, at any depth."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def assert_same_run(found: Path, expected: Path) -> None:
    assert numbers(found) == numbers(expected)
    for name in ("episodes.jsonl", "trained.jsonl", "summary.json", "config.yaml"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    ledgers = [without_clock(json.loads((folder / "ledger.json").read_text())) for folder in (found, expected)]
    assert ledgers[0] == ledgers[1]
    files = [sorted(p.relative_to(folder) for p in folder.rglob("*")) for folder in (found, expected)]
    assert files[0] == files[1]  # nothing half written is left either
    for path in (p for p in files[0] if p.suffix == ".ckpt"):
        contents = [without_clock(torch.load(folder / path, weights_only=True)) for folder in (found, expected)]
        assert equal(*contents), path


# (moment, its occurrence): of the base's test, the supervised stage, RL, the last test
AT = [
    ("before the configuration is kept", 1),
    ("in a rollout", 2), ("in a rollout", 9), ("in a rollout", 20), ("after a rollout", 3),
    ("in a training step", 10), ("in a training step", 30), ("in a training step", 39),
    ("in the middle of a checkpoint", 1), ("in the middle of a checkpoint", 9), ("in the middle of a checkpoint", 10),
    ("after a checkpoint", 6), ("after a checkpoint", 8), ("after a checkpoint", 9),
    ("in the middle of an episode's line", 3), ("in the middle of an episode's line", 60),
    ("before a row of numbers", 8), ("after a row of numbers", 8), ("after the trained tokens", 9),
    ("in an evaluation", 1), ("in an evaluation", 3), ("after an evaluation", 2), ("after an evaluation", 4),
    ("before the results are written", 2), ("before the results are written", 10), ("before the results are written", 13),
]  # fmt: skip


QUICK = (("in the middle of a checkpoint", 9), ("in the middle of an episode's line", 60), ("in an evaluation", 3))


@pytest.mark.parametrize(
    ("moment", "call"), [pytest.param(*at, marks=[] if at in QUICK else [pytest.mark.slow]) for at in AT]
)
def test_a_run_killed_at_a_chosen_moment(whole, config: Path, zygote: Zygote, tmp_path: Path, moment: str, call: int):
    command = ("--config", str(config), *ARGS, "--run", str(tmp_path / "run"))
    status, _ = zygote.run(*command, at=moment, call=call)
    assert status == -signal.SIGKILL, "that moment did not come"
    assert zygote.run(*command, "--ckpt_path", "last")[0] == 0
    assert_same_run(tmp_path / "run", whole[0])


def test_the_configuration_is_there_at_every_moment_of_its_replacement(tmp_path: Path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.keep_config("old")
    writes, write = [0], run_folder.write_whole

    def second_fails(path: Path, text: str) -> None:
        writes[0] += 1
        if writes[0] == 2:
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(run_folder, "write_whole", second_fails)
    with pytest.raises(KeyboardInterrupt):
        folder.keep_config("new")
    assert (tmp_path / "config.yaml").read_text() == (tmp_path / "config.1.yaml").read_text() == "old"


def test_a_record_that_became_shorter_is_not_gone_on_with(tmp_path: Path):
    folder = RunFolder(tmp_path)
    (tmp_path / "episodes.jsonl").write_text("12345")
    mark = folder.mark()
    (tmp_path / "episodes.jsonl").write_text("123")
    with pytest.raises(BadInput, match=r"episodes.jsonl: it has 3 bytes, and had 5"):
        folder.cut(mark)


def test_every_moment_is_tried():
    assert {moment for moment, _ in AT} == set(MOMENTS)


@pytest.mark.slow
def test_a_run_killed_ten_times_at_random(whole, config: Path, zygote: Zygote, tmp_path: Path):
    """One run, killed again and again on its way; each time it is at least begun."""
    moments, kills = random.Random(0), 0
    command = ("--config", str(config), *ARGS, "--run", str(tmp_path / "run"))
    for number in range(10):
        # later ones come later, or a run with so many beginnings would never get to its end
        seconds = moments.uniform(0, whole[1] * (0.4 + 0.06 * number))
        last = ("--ckpt_path", "last") if number else ()
        status, _ = zygote.run(*command, *last, watch=str(tmp_path / "run"), after=seconds)
        kills += status == -signal.SIGKILL
    assert kills >= 8  # a run that has ended in the meantime only prints its table
    assert zygote.run(*command, "--ckpt_path", "last")[0] == 0
    assert_same_run(tmp_path / "run", whole[0])


@pytest.mark.slow
def test_a_run_in_real_games_killed_twice_at_random(config: Path, zygote: Zygote, tmp_path: Path):
    pytest.importorskip("textworld")
    for split, count in (("train", 4), ("sft", 4), ("validation", 2), ("test", 2)):
        TextWorld(str(tmp_path / "games")).tasks("w2-o3-q4", split, count)
    world = "lit_agents.environment.textworld.TextWorld"
    command = ["--config", str(config), *ARGS, "--data.environment", world, "--data.tasks", "w2-o3-q4"]
    command += ["--data.environment.init_args.folder", str(tmp_path / "games"), "--data.reward", "null"]
    command += ["--data.train_tasks", "4", "--data.validation_tasks", "2", "--data.test_tasks", "2"]
    command += ["--data.limits.turns", "4", "--data.limits.context", "1600"]
    command += ["--data.schedule.micro_batch_tokens", "4096"]
    command += ["--data.sampling.max_tokens", "60"]  # the expert's commands, of which each letter is a token
    command += ["--sft.demonstrations", "4", "--sft.epochs", "2", "--run"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    status, seconds = zygote.run(*command, str(whole), watch=str(whole))
    assert status == 0
    moments = random.Random(1)
    for last in ((), ("--ckpt_path", "last")):
        after = moments.uniform(0.1, 0.8 * seconds)
        assert zygote.run(*command, str(run), *last, watch=str(run), after=after)[0] == -signal.SIGKILL
    assert zygote.run(*command, str(run), "--ckpt_path", "last")[0] == 0
    assert_same_run(run, whole)
