"""Nested mappings as flat settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(overlay: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its flag; lists and empty mappings are settings of their own."""
    for name, value in overlay.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
