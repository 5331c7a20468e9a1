"""Where things that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path

from lit_agents.system.files import made_folder


def cache_folder(name: str) -> Path:
    """``$LIT_AGENTS_CACHE/name``, by default ``~/.cache/lit_agents/name``; made if absent.

    Raises:
        BadInput: it cannot be made.
    """
    root = os.environ.get("LIT_AGENTS_CACHE") or Path.home() / ".cache" / "lit_agents"
    return made_folder("LIT_AGENTS_CACHE", Path(root).expanduser() / name)
