"""Settings laid over a configuration: nested like the YAML they end in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_agents.system.nested import leaves

Overlay = Mapping[str, Any]


class Settings:
    """Settings as they stand in a file; whoever parses the file neither completes them nor makes a class that is in them."""

    def __init__(self, content: Overlay | None = None) -> None:
        self.content = dict(content or {})

    def __repr__(self) -> str:
        return f"Settings({self.content!r})"

    @staticmethod
    def read(value: object) -> Settings:
        """From the file.

        Raises:
            ValueError: it is no mapping.
        """
        if not isinstance(value, Mapping):
            raise ValueError("settings are nested as in a configuration")
        return Settings(value)


def placed(flag: str, value: Any) -> dict[str, Any]:
    """``a.b``, 1 -> ``{a: {b: 1}}``."""
    for name in reversed(flag.split(".")):
        value = {name: value}
    return dict(value)


def merged(below: Overlay, above: Overlay) -> dict[str, Any]:
    """Both; where they disagree, what is above. A class path takes its own arguments with it, and keeps no other class's."""
    result = dict(below)
    for name, value in above.items():
        there = result.get(name)
        if isinstance(there, Mapping) and isinstance(value, Mapping) and not _other_class(there, value):
            value = merged(there, value)
        result[name] = value
    return result


def _other_class(below: Overlay, above: Overlay) -> bool:
    return "class_path" in above and above["class_path"] != below.get("class_path", above["class_path"])


def found(config: Overlay, flag: str) -> Any:
    """What a configuration has there.

    Raises:
        KeyError: nothing.
    """
    value: Any = config
    for name in flag.split("."):
        if not isinstance(value, Mapping):
            raise KeyError(flag)
        value = value[name]
    return value


def disagreements(overlay: Overlay, resolved: Overlay) -> list[str]:
    """Settings that a resolved configuration does not have, or has otherwise; a sentence each."""
    said = []
    for flag, value in leaves(overlay):
        try:
            there = found(resolved, flag)
        except KeyError:
            said.append(f"{flag} is not there")
            continue
        if not _same(value, there):
            said.append(f"{flag} is {there!r}, not {value!r}")
    return said


def _same(wanted: Any, there: Any) -> bool:
    """Equal, or a list of mappings each of whose settings is there: the parser adds defaults."""
    if isinstance(wanted, list) and isinstance(there, list):
        return len(wanted) == len(there) and all(map(_same, wanted, there))
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        return not disagreements(wanted, there)
    if isinstance(wanted, bool) or isinstance(there, bool):
        return wanted is there
    return bool(wanted == there)
