"""Data that users do not have: found by LIT_AGENTS_DATA, or beside the project; tests that need it skip without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HOUSEHOLDS = "alfworld/alfworld_json_2.1.1_tw_full.tar.xz"
"""The official games of ALFWorld."""


def shared_data(name: str) -> Path:
    """A file or folder of it."""
    root = Path(os.environ.get("LIT_AGENTS_DATA") or Path(__file__).parents[2] / "shared" / "data")
    path = root / name
    if not path.exists():
        pytest.skip(f"there is no {name} (LIT_AGENTS_DATA names the folder it would be in)")
    return path
