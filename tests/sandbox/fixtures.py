"""Fixtures of tests that need sandboxes, here and in tests/environment/swe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.bubblewrap import BubblewrapSandbox
from lit_agents.sandbox.docker import DockerSandbox
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Allowance, Runtime
from tests.sandbox.engines import Engine

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
