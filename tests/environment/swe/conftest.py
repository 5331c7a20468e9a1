from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_agents.environment.swe.sandbox.base import Sandbox
from lit_agents.environment.swe.sandbox.bubblewrap import BubblewrapSandbox
from lit_agents.environment.swe.sandbox.engine import DockerSandbox
from lit_agents.environment.swe.sandbox.terms import Allowance, Runtime
from lit_agents.environment.swe.sandbox.trusted import SubprocessSandbox
from lit_agents.types import Task
from tests.environment.swe.engines import Engine
from tests.environment.swe.little import COUNT, little_package, world

SMALL = Allowance(memory=256 << 20, processes=48, cpus=0.5, file_size=32 << 20, work_size=64 << 20)
PYTHON = Runtime(shown=(sys.base_prefix,), path=(f"{sys.base_prefix}/bin",), variables={"GREETING": "from {work}"})


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a container engine: the one that DOCKER_HOST names, or one of the tests' own."""
    if named := os.environ.get("DOCKER_HOST"):
        if trouble := DockerSandbox(url=named).trouble():
            pytest.skip(trouble)
        yield named
        return
    if missing := Engine.missing():
        pytest.skip(missing)
    own = Engine(tmp_path_factory.mktemp("engine"))
    own.start()
    yield own.url
    own.stop()


@pytest.fixture(
    scope="module", params=[DockerSandbox, BubblewrapSandbox, SubprocessSandbox], ids=lambda kind: kind.__name__
)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """An open sandbox of each kind that works here, with small allowances."""
    kind = request.param
    made = DockerSandbox(SMALL, request.getfixturevalue("engine")) if kind is DockerSandbox else kind(SMALL)
    if trouble := made.trouble():
        pytest.skip(trouble)
    with made:
        made.open(PYTHON)
        yield made


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swe")


@pytest.fixture(scope="session")
def little(home: Path) -> str:
    little_package(home / "other")
    (home / "other" / "README").write_text("another one, for training")
    return str(little_package(home / "little"))


@pytest.fixture(scope="session")
def tasks(home: Path, little: str) -> list[Task]:
    """Made without protection; what is in them does not depend on the sandbox."""
    return world(home, little).tasks("generated", "test", COUNT)
