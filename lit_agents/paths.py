"""Where things that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """``$LIT_AGENTS_CACHE/name``, by default ``~/.cache/lit_agents/name``; made if absent."""
    root = os.environ.get("LIT_AGENTS_CACHE") or Path.home() / ".cache" / "lit_agents"
    folder = Path(root).expanduser() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
