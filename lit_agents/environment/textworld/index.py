"""What is known of the TextWorld games of one set: ``index.jsonl``, and whether the files are still as they were made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lit_agents.errors import BadInput
from lit_agents.system.files import text_lines


@dataclass(frozen=True)
class Row:
    """What the index says of one game."""

    seed: int
    sha256: str
    """Of the ``.z8`` followed by the ``.json``."""
    stamps: Sequence[tuple[int, int]]
    """Size and modification time of each file when it was hashed; a file that still has both is not hashed again."""
    steps: int
    """Length of the walkthrough."""
    rewards: int
    """Number of times the score rises on it."""
    fault: str = ""
    """Why it is left out, if it is; then it has no files."""


def read_index(folder: Path) -> dict[int, Row]:
    """By seed, those left out too; not in it, and so made again, are games without files and those whose row was cut."""
    rows = {}
    with suppress(FileNotFoundError):
        for line in text_lines(folder / "index.jsonl"):
            with suppress(ValueError, TypeError):
                row = Row(**json.loads(line))
                rows[row.seed] = row
    return {seed: row for seed, row in rows.items() if row.fault or any(p.exists() for p in pair(folder, seed))}


def verify(folder: Path, row: Row, way_out: str) -> None:
    """Are both files there, with the content they were made with?

    Raises:
        BadInput: no; it names the file.
    """
    paths = pair(folder, row.seed)
    for path in paths:
        if not path.is_file():
            raise BadInput(str(path), "this half of the game's pair of files is missing.", way_out)
    unchanged = all(stamp(path) == tuple(old) for path, old in zip(paths, row.stamps, strict=True))
    if not unchanged and digest(paths) != row.sha256:
        raise BadInput(str(paths[0]), "it or the .json beside it is not as it was made.", way_out)


def note(folder: Path, row: Row) -> None:
    """Append a row."""
    with open(folder / "index.jsonl", "ab", buffering=0) as index:  # one write; a line that a kill cut stays alone
        index.write(f"\n{json.dumps(asdict(row))}\n".encode())


def pair(folder: Path, seed: int) -> list[Path]:
    """The two files of a game."""
    return [folder / f"{seed}.z8", folder / f"{seed}.json"]


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of their contents, one after the other."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def stamp(path: Path) -> tuple[int, int]:
    """Size and modification time."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
