"""Ctrl-C and worse: whatever the moment, the folder is usable, nothing is left running, and the run can go on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lit_agents.environment.toy import EchoWorld
from lit_agents.fit import fit, main
from lit_agents.run.callbacks.recorder import EpisodeRecorder

ROOT = Path(__file__).parents[2]


def start(*args: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "lit_agents.fit", *args],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it did not get so far"
        time.sleep(0.02)


def descendants(pid: int) -> set[int]:
    """Every process below one, also those in sessions of their own."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it has just ended
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def rows(run: str) -> list[dict[str, str]]:
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.endswith(("_seconds", "/s"))} for row in csv.DictReader(file)]


def weights(run: str) -> dict[str, torch.Tensor]:
    return torch.load(f"{run}/checkpoints/rl/last.ckpt", weights_only=True)["state_dict"]


def same_run(a: str, b: str) -> bool:
    episodes = [(Path(run) / "episodes.jsonl").read_text() for run in (a, b)]
    first, second = weights(a), weights(b)
    equal = all(torch.equal(first[name], second[name]) for name in first | second)
    ledgers = [json.loads((Path(run) / "ledger.json").read_text()) | {"seconds": None} for run in (a, b)]
    return equal and rows(a) == rows(b) and episodes[0] == episodes[1] and ledgers[0] == ledgers[1]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for left-over processes in /proc")
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_process_and_goes_on_to_the_same_end(toy, how):
    long = ["--config", toy, "--trainer.max_epochs", "12"]
    process = start(*long, "--run", "stopped")
    wait_for(lambda: Path("stopped/checkpoints/rl/last.ckpt").exists(), process)
    below = descendants(process.pid)
    assert below
    process.send_signal(how)
    err = process.communicate(timeout=30)[1]
    end = time.monotonic() + 10
    while any(map(alive, below)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, below))
    if how is signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in err
        assert "--config stopped/config.yaml --run stopped --ckpt_path last" in err
    for line in Path("stopped/episodes.jsonl").read_text().splitlines()[:-1]:
        json.loads(line)
    assert 0 < len([r for r in rows("stopped") if r["stage"] == "rl"]) < 12
    fit(["--config", "stopped/config.yaml", "--run", "stopped", "--ckpt_path", "last"])
    fit([*long, "--run", "whole"])
    assert same_run("stopped", "whole")


def stopping(times: int):
    """A function that is Ctrl-C at its n-th call."""
    left = [times]

    def stop() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("moment", ["tasks", "base", "sft", "rl", "test"])
def test_an_interrupt_at_any_moment_says_how_to_go_on(toy, monkeypatch, capfd, moment):
    fit(["--config", toy, "--run", "whole"])
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        if moment == "tasks":
            stop = stopping(1)
            patched.setattr(EchoWorld, "tasks", lambda *_: stop())
        elif moment in ("sft", "rl"):
            stop, write = stopping(4 if moment == "sft" else 8), EpisodeRecorder.on_train_epoch_end
            patched.setattr(EpisodeRecorder, "on_train_epoch_end", lambda *a: (stop(), write(*a)))
        else:
            stop = stopping(1 if moment == "base" else 3)
            patched.setattr("lit_agents.run.pipeline.measure", _before(stop))
        capfd.readouterr()
        assert main(["--config", toy, "--run", "run"]) == 130
    error = capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler and "Traceback" not in error
    if moment == "tasks":
        assert "interrupted before the run began" in error and not Path("run").exists()
        return
    assert "Go on with\n  python -m lit_agents.fit --config run/config.yaml --run run --ckpt_path last" in error
    assert main(["--config", "run/config.yaml", "--run", "run", "--ckpt_path", "last"]) == 0
    assert same_run("run", "whole")


def test_a_critic_is_the_same_whenever_the_run_was_stopped_before_it_was_made(toy, monkeypatch):
    text = Path(toy).read_text()
    assert "grpo.GRPO" in text
    Path(toy).write_text(text.replace("grpo.GRPO", "ppo.PPO"))
    fit(["--config", toy, "--run", "whole"])
    with monkeypatch.context() as patched:
        stop, write = stopping(2), EpisodeRecorder.on_train_epoch_end
        patched.setattr(EpisodeRecorder, "on_train_epoch_end", lambda *a: (stop(), write(*a)))
        assert main(["--config", toy, "--run", "run"]) == 130
    assert main(["--config", "run/config.yaml", "--run", "run", "--ckpt_path", "last"]) == 0
    assert any("value_head" in name for name in weights("run")) and same_run("run", "whole")


def test_a_schedulers_signal_ends_with_its_code_and_says_how_to_go_on(toy):
    process = start("--config", toy, "--trainer.max_epochs", "40", "--run", "stopped")
    wait_for(lambda: Path("stopped/checkpoints/rl/last.ckpt").exists(), process)
    process.terminate()
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 143 and "--run stopped --ckpt_path last" in error


def test_a_result_from_before_training_went_on_is_measured_again(toy, monkeypatch):
    fit(["--config", toy, "--run", "run", "--trainer.max_epochs", "2"])
    with monkeypatch.context() as patched:
        patched.setattr("lit_agents.run.pipeline.measure", _before(stopping(1)))
        assert main(["--config", toy, "--run", "run", "--ckpt_path", "last"]) == 130  # in the last test, of epoch 3
    fit(["--config", toy, "--run", "run", "--ckpt_path", "last"])
    fit(["--config", toy, "--run", "whole"])
    assert same_run("run", "whole")
    summaries = [json.loads(Path(run, "summary.json").read_text()) for run in ("run", "whole")]
    assert summaries[0]["success"] == summaries[1]["success"]


def test_after_a_return_to_the_supervised_stage_the_last_checkpoint_is_not_the_old_one(toy, monkeypatch):
    fit(["--config", toy, "--run", "run"])
    before = {"--config": toy, "--run": "run", "--ckpt_path": "run/checkpoints/sft/last.ckpt"}
    with monkeypatch.context() as patched:
        patched.setattr(EpisodeRecorder, "on_train_epoch_end", lambda *_: stopping(1)())
        assert main([word for pair in before.items() for word in pair]) == 130
    fit(["--config", toy, "--run", "run", "--ckpt_path", "last"])
    fit(["--config", toy, "--run", "whole"])
    assert same_run("run", "whole")


def _before(stop):
    from lit_agents.evaluation.evaluate import measure

    def interrupted(*args: object, **settings: object):
        stop()
        return measure(*args, **settings)

    return interrupted


def test_an_interrupt_before_anything_is_parsed_raises_no_other_error(toy, monkeypatch, capfd):
    monkeypatch.setattr("lit_agents.fit.FitCLI", lambda *_: stopping(1)())
    assert main(["--config", toy]) == 130
    assert capfd.readouterr().err == ""
