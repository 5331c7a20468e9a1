"""Episodes in every kind of sandbox that works here: what wins, and that nothing is left of them, whoever is killed."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.environment.swe import SweGym
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.bubblewrap import BubblewrapSandbox
from lit_agents.sandbox.docker import DockerSandbox
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Runtime, SandboxError
from lit_agents.types import Task
from tests.environment.swe.little import world
from tests.sandbox.engines import Engine
from tests.sandbox.traces import MARK, left, traces

SIDE_BY_SIDE = 8
EPISODES = 200

pytestmark = pytest.mark.slow


@pytest.fixture(params=[DockerSandbox, BubblewrapSandbox, SubprocessSandbox], ids=lambda kind: kind.__name__)
def backend(request: pytest.FixtureRequest) -> Sandbox:
    kind = request.param
    made = DockerSandbox(url=request.getfixturevalue("engine")) if kind is DockerSandbox else kind()
    if trouble := made.trouble():
        pytest.skip(trouble)
    return made


@pytest.fixture
def swe(backend: Sandbox, home: Path, little: str) -> SweGym:
    return world(home, little, backend)


@pytest.fixture
def url(backend: Sandbox) -> str:
    return backend.url if isinstance(backend, DockerSandbox) else ""


def test_the_fix_wins_every_task_and_doing_nothing_none(swe: SweGym, tasks: list[Task], url: str):
    before, live = traces(url), dict(enumerate(tasks))
    with EnvPool(swe, len(live), step_timeout=120.0) as pool:
        for played in ("expert", "nothing"):
            starts = pool.reset(live)
            assert not [start for start in starts.values() if isinstance(start, Failure)]
            playing, won = set(live), set()
            for _ in range(8):
                actions = pool.ask_expert(playing) if played == "expert" else dict.fromkeys(playing, "submit")
                ends = pool.step(actions)
                won |= {number for number, end in ends.items() if end.won}
                playing -= {number for number, end in ends.items() if end.terminated}
                if not playing:
                    break
            assert not playing and won == (set(live) if played == "expert" else set())
    assert left(before, url) == set()


def test_two_hundred_episodes_leave_nothing(swe: SweGym, tasks: list[Task], url: str, backend: Sandbox):
    if isinstance(backend, SubprocessSandbox):
        pytest.skip("it promises to leave nothing of one command's process group, which is tested by itself")
    before = traces(url)
    with EnvPool(swe, SIDE_BY_SIDE, step_timeout=120.0) as pool:
        for first in range(0, EPISODES, SIDE_BY_SIDE):
            live = {number: tasks[(first + number) % len(tasks)] for number in range(SIDE_BY_SIDE)}
            starts = pool.reset(live)
            assert not [start for start in starts.values() if isinstance(start, Failure)]
            done = pool.step(dict.fromkeys(live, f"touch there; sleep {MARK} & mkdir -m 0 locked; ls -a"))
            assert all("there" in end.observation for end in done.values()), done
            if first % (5 * SIDE_BY_SIDE) == 0:
                assert all(end.lost for end in pool.step(dict.fromkeys(live, "submit")).values())
    assert left(before, url) == set()


RUN = """
import pickle, sys
from lit_agents.environment.pool.pool import EnvPool
if __name__ == "__main__":
    swe, task, command = pickle.loads(bytes.fromhex(sys.argv[1]))
    with EnvPool(swe, 2) as pool:
        pool.reset({0: task, 1: task})
        print("ready", flush=True)
        pool.step({0: command, 1: command})
"""


def test_nothing_is_left_of_a_run_that_is_killed(swe: SweGym, tasks: list[Task], url: str, tmp_path: Path):
    before = traces(url)
    (tmp_path / "run.py").write_text(RUN)
    given = pickle.dumps((swe, tasks[0], f"sleep {MARK}")).hex()
    with subprocess.Popen([sys.executable, str(tmp_path / "run.py"), given], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout and run.stdout.readline() == "ready\n"
        assert traces(url) - before
        run.send_signal(signal.SIGKILL)
    assert left(before, url, 30) == set()


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if missing := Engine.missing():
        pytest.skip(missing)
    engine = Engine(tmp_path_factory.mktemp("mortal"))
    engine.start()
    yield engine
    engine.stop()


# the docker package leaves its socket open where nobody answers
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_is_killed_breaks_the_episode_and_keeps_nothing_when_it_is_back(own: Engine):
    before = traces(own.url)
    with DockerSandbox(url=own.url) as sandbox:
        sandbox.open(Runtime())
        own.kill()
        with pytest.raises(SandboxError):
            sandbox.run("true", 20)
        own.start()
    gc.collect()
    assert left(before, own.url) == set()


def test_what_an_engine_that_is_gone_has_kept_is_removed_by_the_next_to_use_it(own: Engine):
    code = "import sys, pickle\nfrom lit_agents.sandbox.base import Runtime\n"
    code += "pickle.loads(bytes.fromhex(sys.argv[1])).open(Runtime())\nprint('ready', flush=True)\ninput()"
    sandbox, before = DockerSandbox(url=own.url), traces(own.url)
    command = [sys.executable, "-c", code, pickle.dumps(sandbox).hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout and owner.stdout.readline() == "ready\n"
        own.kill()
        owner.kill()
        for name in [name for name in traces() - before if name.startswith("process")]:
            os.kill(int(name.partition(" ")[2]), signal.SIGKILL)  # the janitor, so that nobody tells the engine
    own.start()
    assert any(name.startswith("container") for name in traces(own.url) - before)
    with sandbox:
        sandbox.open(Runtime())
    assert left(before, own.url) == set()
