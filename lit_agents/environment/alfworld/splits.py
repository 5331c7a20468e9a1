"""Which ALFWorld games a name such as ``official-heat+cool`` stands for, split by split, always in the same order."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lit_agents.environment.alfworld.archive import GAME, TYPES, Row, read_index
from lit_agents.environment.alfworld.generate.generator import generated
from lit_agents.errors import BadInput
from lit_agents.system.processes import makers

OFFICIAL, GENERATED = "official", "generated"
"""Folders of games."""
SPLITS = {"train": "train", "sft": "train", "validation": "valid_train", "test": "valid_unseen"}
"""Official games behind our splits. ``sft`` takes from the end of a fixed random order, ``train`` from its beginning."""
SOURCES = ("official", "seen", "generated", "mixed")
FIRST_SEED = {"test": 1, "validation": 20_001, "train": 30_001, "sft": 40_001}
"""Of the generated games of each split, which has up to 10,000 of each type."""


def listed(folder: Path, spec: str, split: str, count: int, workers: int | None) -> list[tuple[Path, Row]]:
    """So many games, each with its row of the index; generated ones are made if they are not there.

    Args:
        folder: holds the folders of official and of generated games.
        spec: see `lit_agents.environment.alfworld.env`.
        split: train, sft, validation or test.
        count: from the first one on.
        workers: processes that make games; by default one per core.

    Raises:
        BadInput: there is no such spec or split, or there are fewer games.
    """
    source, kinds = _parsed(spec)
    if split not in SPLITS:
        raise BadInput("split", f"there is no {split!r}.", f"Choose one of {', '.join(SPLITS)}.")
    found: list[tuple[Path, Row]] = []
    if source != "generated":
        published = "valid_seen" if (source, split) == ("seen", "test") else SPLITS[split]
        rows = _official(folder / OFFICIAL, published, split, kinds)
        found = [(folder / OFFICIAL, row) for row in (rows if spec.endswith("-all") else _in_turns(rows))[:count]]
    if source in ("generated", "mixed") and len(found) < count:
        made = _generated(folder / GENERATED / split, split, kinds, count - len(found), workers)
        found += [(folder / GENERATED, row) for row in made]
    if count > len(found):
        reason = f"{spec} has {len(found)} games for {split}, not {count}."
        raise BadInput("count", reason, "Ask for fewer, or more types.")
    return [(root / row.split / row.name / GAME, row) for root, row in found]


def _official(folder: Path, published: str, split: str, kinds: Sequence[str]) -> list[Row]:
    rows = [row for row in read_index(folder) if row.split == published and row.kind in kinds]
    sound = [row for row in rows if not row.fault]
    return sorted(sound, key=lambda row: hashlib.sha256(row.name.encode()).digest(), reverse=split == "sft")


def _generated(folder: Path, split: str, kinds: Sequence[str], count: int, workers: int | None) -> list[Row]:
    if count > 10_000 * len(kinds):
        raise BadInput("count", f"a split has 10,000 generated games of each type, not {count}.", "Ask for fewer.")
    wanted = [(kinds[i % len(kinds)], FIRST_SEED[split] + i // len(kinds)) for i in range(count)]
    return generated(folder, wanted, makers(workers))


def _in_turns(rows: Sequence[Row]) -> list[Row]:
    """The first one of each type, the second one of each, and so on while there are any."""
    seen, numbered = Counter[str](), []
    for row in rows:
        numbered.append((seen[row.kind], row))
        seen[row.kind] += 1
    return [row for _, row in sorted(numbered, key=lambda pair: pair[0])]


def _parsed(spec: str) -> tuple[str, list[str]]:
    """Where games come from, and their types."""
    known = list(TYPES.values())
    source, _, names = spec.partition("-")
    kinds = known if names == "all" else names.split("+")
    if source not in SOURCES or not set(kinds) <= set(known) or len(set(kinds)) < len(kinds):
        sources = ", ".join(f"{name}-" for name in SOURCES)
        reason = f"{spec!r} is not one of {sources} and all, or types of {', '.join(known)} joined by +."
        raise BadInput("spec", reason, "For instance official-heat+cool, or generated-all.")
    return source, kinds
