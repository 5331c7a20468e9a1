"""Random number generators that depend on a key alone: independent of order, batching and the number of processes."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(*key: object) -> np.random.Generator:
    """Random numbers that depend on the key alone, not on when or beside what they are drawn."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64)))
