"""A run folder belongs to one process at a time, whoever else is started at the same moment."""

from __future__ import annotations

import csv
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from lit_agents.errors import BadInput
from lit_agents.fit import fit, main
from lit_agents.run import folder as run_folder
from lit_agents.run.folder import RunFolder
from tests.integration.conftest import ONE_ITERATION
from tests.integration.zygote import Zygote

AT_ONCE, TIMES = 4, 5
FORK = multiprocessing.get_context("fork")


def claimed(barrier: Barrier, folder: Path, chosen: str | None, answers: Path) -> None:
    """Claim a folder at the moment at which all others do, and hold it until all have tried."""
    os.chdir(folder)
    barrier.wait()
    try:
        run = RunFolder.find("toy", chosen)
        barrier.wait()  # all have seen the same free place
        run.create()
        run.keep_config(f"of {os.getpid()}")
        said = str(run.path)
    except BadInput as error:
        said = f"refused: {error}"
        barrier.abort() if barrier.n_waiting else None
    (answers / str(os.getpid())).write_text(said)
    time.sleep(0.5)


def at_the_same_moment(target: Callable[..., None], *args: object) -> list[int | None]:
    barrier = FORK.Barrier(AT_ONCE)
    processes = [FORK.Process(target=target, args=(barrier, *args)) for _ in range(AT_ONCE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("chosen", [None, "mine"])
def test_of_processes_that_start_at_the_same_moment_each_has_a_folder_of_its_own_or_is_refused(tmp_path: Path, chosen):
    for attempt in range(TIMES):
        home, answers = tmp_path / str(attempt), tmp_path / f"answers-{attempt}"
        home.mkdir()
        answers.mkdir()
        at_the_same_moment(claimed, home, chosen, answers)
        said = {path.name: path.read_text() for path in answers.iterdir()}
        got = {pid: words for pid, words in said.items() if not words.startswith("refused")}
        assert len(said) == AT_ONCE and len(set(got.values())) == len(got) == (1 if chosen else AT_ONCE)
        for pid, folder in got.items():
            assert (home / folder / "config.yaml").read_text() == f"of {pid}"
        if chosen:
            assert all("at work in it" in words for pid, words in said.items() if pid not in got)


def rows(run: str) -> list[dict[str, str]]:
    with (Path(run) / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def at_work(folder: str, begun: Barrier) -> None:
    """A run that lives until it is killed."""
    _run = RunFolder.reopen("run", folder, "last")
    begun.wait()
    time.sleep(600)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="names the other process from /proc")
def test_a_folder_in_which_a_run_lives_is_refused_and_one_whose_run_was_killed_is_not(toy, capfd):
    fit(["--config", toy, *ONE_ITERATION])
    before = {path: path.stat().st_mtime_ns for path in Path("runs/toy-1").rglob("*") if path.name != "run.lock"}
    begun = FORK.Barrier(2)
    process = FORK.Process(target=at_work, args=("runs/toy-1", begun))
    process.start()
    begun.wait()
    try:
        for again in (["--run", "runs/toy-1"], [], ["--ckpt_path", "runs/toy-1/checkpoints/sft/last.ckpt"]):
            more = again if "--ckpt_path" in again else [*again, "--ckpt_path", "last"]
            assert main(["--config", toy, *ONE_ITERATION, *more]) == 2
            error = capfd.readouterr().err
            assert f"runs/toy-1: process {process.pid} on " in error and "is at work in it" in error
        assert before == {path: path.stat().st_mtime_ns for path in before}
    finally:
        process.kill()
        process.join(30)
    fit(["--config", toy, "--run", "runs/toy-1", "--ckpt_path", "last", *ONE_ITERATION])


def test_a_folder_is_free_again_when_its_run_has_ended_or_was_refused(toy):
    fit(["--config", toy, "--run", "run", *ONE_ITERATION])
    assert (
        main(["--config", toy, "--run", "run", "--ckpt_path", "last", "--model", "lit_agents.algorithm.rloo.RLOO"]) == 2
    )
    fit(["--config", toy, "--run", "run", "--ckpt_path", "last", *ONE_ITERATION])


def test_a_folder_that_another_process_used_since_it_was_looked_at_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.find("toy", "mine")
    Path("mine").mkdir()
    Path("mine/config.yaml").write_text("of another run")
    try:
        with pytest.raises(BadInput, match="--run mine: another process has used it"):
            folder.create()
    finally:
        folder.release()
    assert Path("mine/config.yaml").read_text() == "of another run"
    folder = RunFolder.find("toy", None)
    Path("runs/toy-1").mkdir(parents=True)
    free = [Path("runs/toy-1"), Path("runs/toy-2")]  # what was listed just before the other process made the first one
    monkeypatch.setattr(run_folder, "_free", lambda name: iter(free))
    folder.create()
    folder.release()
    assert folder.path == Path("runs/toy-2") and not list(Path("runs/toy-1").iterdir())


@pytest.mark.slow
def test_two_commands_at_the_same_moment_are_two_runs(toy, tmp_path: Path):
    two = [Zygote(), Zygote()]
    try:
        for zygote in two:
            zygote.begin("--config", toy, "--sft", "null", *ONE_ITERATION)
        assert [zygote.ended()[0] for zygote in two] == [0, 0]
    finally:
        for zygote in two:
            zygote.close()
    folders = sorted(path.name for path in Path("runs").iterdir())
    assert folders == ["toy-1", "toy-2"]
    for name in folders:
        assert [(row["stage"], row["iteration"]) for row in rows(f"runs/{name}")] == [("rl", "1")]
