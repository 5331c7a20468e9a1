"""Short names of long lists of numbers, so that two records of the same tokens can be held against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def digest(ids: Iterable[int]) -> str:
    """16 hex digits of the SHA-256 of token ids; another one for any other list, but for a chance of about 1e-19."""
    return _short(np.fromiter(ids, dtype="<i8").tobytes())


def digest_floats(values: Iterable[float]) -> str:
    """The same of numbers as float32, bit for bit."""
    return _short(np.fromiter(values, dtype="<f4").tobytes())


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
