"""A few real games, made once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from lit_agents.environment.textworld.env import TextWorld


@pytest.fixture(scope="session")
def games_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the games of this test session are made."""
    return tmp_path_factory.mktemp("textworld")


@pytest.fixture
def textworld(games_folder: Path) -> TextWorld:
    """A fresh environment over the session's games."""
    pytest.importorskip("textworld")
    return TextWorld(str(games_folder), workers=2)
