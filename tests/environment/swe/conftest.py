from __future__ import annotations

from pathlib import Path

import pytest

from lit_agents.types import Task
from tests.environment.swe.little import COUNT, little_package, world


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
