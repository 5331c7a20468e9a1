"""Tiny models run on one thread, as in the tests of the policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policy.conftest import one_thread
from tests.tiny import tiny_model_folder

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_AGENTS_CACHE", str(tmp_path / "cache"))
