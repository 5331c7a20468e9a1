"""A scheduler's signals: the run ends as after Ctrl-C, SLURM queues its job again, and one command begins and goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lit_agents.errors import BadInput, Stopped
from lit_agents.fit import fit, main
from lit_agents.run.scheduler import scheduler_signals, without_requeue
from tests.integration.conftest import ONE_ITERATION, TOY
from tests.integration.test_interrupt import start, wait_for
from tests.integration.test_kill import assert_same_run
from tests.integration.zygote import Zygote

SLURM = {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "run.sbatch"}
SLURM |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def slurm(tmp_path: Path) -> Mapping[str, str]:
    """The variables of a job, with a stand-in for scontrol that notes what it was asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (folder / "scontrol").chmod(0o755)
    return SLURM | {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_job_that_is_requeued_in_both_stages_ends_like_one_that_was_never_stopped(
    tmp_path: Path, tiny_weights: Path, zygote: Zygote, slurm: Mapping[str, str]
):
    (tmp_path / "toy.yaml").write_text(TOY.format(weights=tiny_weights))
    command = ["--config", str(tmp_path / "toy.yaml"), "--ckpt_path", "last", "--run"]
    at = {"sends": signal.SIGUSR1, "env": slurm}
    run, whole = tmp_path / "run", tmp_path / "whole"
    for moment, call in (("in a training step", 9), ("in a rollout", 7), ("after a checkpoint", 3)):
        assert zygote.run(*command, str(run), at=moment, call=call, **at)[0] == 0
    assert (tmp_path / "asked").read_text().splitlines() == ["requeue 77"] * 3
    assert (run / "checkpoints/rl/last.ckpt").exists() and not list(run.rglob("hpc_ckpt*"))
    assert zygote.run(*command, str(run), env=slurm)[0] == 0
    assert zygote.run(*command, str(whole), env=slurm)[0] == 0
    assert len((tmp_path / "asked").read_text().splitlines()) == 3  # a run that ends by itself is not queued again
    assert_same_run(run, whole)


def test_a_process_of_its_own_under_slurm_is_requeued(toy, slurm, monkeypatch):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    process = start("--config", toy, "--trainer.max_epochs", "40", "--run", "run", "--ckpt_path", "last")
    wait_for(lambda: Path("run/checkpoints/rl/last.ckpt").exists(), process)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)  # as SLURM does soon after
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 0 and Path("asked").read_text() == "requeue 77\n"
    assert "--run run --ckpt_path last" in error and "SLURM has queued job 77 again" in error
    assert "Traceback" not in error and not list(Path("run").glob("hpc_ckpt*"))


@pytest.fixture
def in_slurm(slurm: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)


def sent(number: int) -> Stopped:
    with pytest.raises(Stopped) as caught, scheduler_signals():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # no second exception on the way out
    return caught.value


def test_each_signal_has_its_exit_code_and_handlers_are_put_back(in_slurm, tmp_path: Path, monkeypatch, capfd):
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    assert sent(signal.SIGTERM).code == 143 and not (tmp_path / "asked").exists()
    assert sent(signal.SIGUSR1).code == 0
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert sent(signal.SIGUSR1).code == 0
    assert (tmp_path / "asked").read_text().split("\n") == ["requeue 77", "requeue 70_3", ""]
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'Requeue is disabled' >&2\nexit 1\n")
    capfd.readouterr()
    assert sent(signal.SIGUSR1).code == 138
    assert "did not queue job 70_3 again: scontrol ends with 1: Requeue is disabled" in capfd.readouterr().err
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == handlers


def test_outside_slurm_the_signal_of_a_requeue_is_not_touched(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    handler = signal.getsignal(signal.SIGUSR1)
    with scheduler_signals():
        assert signal.getsignal(signal.SIGUSR1) is handler


def test_a_signal_in_the_first_test_ends_with_its_code_and_says_how_to_go_on(toy, monkeypatch, capfd):
    monkeypatch.setattr("lit_agents.run.pipeline.measure", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["--config", toy, "--run", "run"]) == 143
    assert "--run run --ckpt_path last" in capfd.readouterr().err


def test_lightning_handles_no_signal_of_slurm_and_its_checkpoint_is_not_gone_on_from(toy, in_slurm):
    (plugin,) = without_requeue([])
    assert isinstance(plugin, SLURMEnvironment) and not plugin.auto_requeue
    with pytest.raises(BadInput, match=r"trainer\.plugins: SLURMEnvironment would requeue"):
        without_requeue([SLURMEnvironment()])
    fit(["--config", toy, "--run", "run", "--sft", "null", *ONE_ITERATION])
    Path("run/hpc_ckpt_1.ckpt").touch()
    with pytest.raises(BadInput, match=r"run/hpc_ckpt_1\.ckpt: Lightning has left it"):
        fit(["--config", toy, "--run", "run", "--sft", "null", *ONE_ITERATION, "--ckpt_path", "last"])


def test_a_command_without_a_scheduler_has_no_slurm_plugin(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    assert without_requeue([]) == []
