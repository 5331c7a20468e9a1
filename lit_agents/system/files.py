"""Files that appear whole or not at all, whenever the process is killed; lines of JSON; names and hashes of files."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_agents.errors import BadInput

HALF = ".half"
"""Ending of a file that is being written; a kill may leave one."""
PLAIN_NAME = re.compile(r"[a-z0-9_][a-z0-9_.+-]{0,99}")
"""An identifier that is a file's name as it is, also where names have no case."""


def write_whole(path: Path, text: str) -> None:
    """Write beside, then rename: whoever reads sees the old content or the new one."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def text_lines(path: Path) -> list[str]:
    """The lines of a file in UTF-8, with or without a byte order mark, that are not blank.

    Only a newline ends a line: JSON may hold U+2028 and its like inside a text, where ``str.splitlines`` would cut.
    """
    return [line for line in path.read_bytes().decode("utf-8-sig").split("\n") if line.strip()]


def json_lines(path: Path) -> list[Any]:
    """The values in a file of JSON lines.

    Raises:
        OSError, ValueError: it cannot be read, or a line is no JSON.
    """
    return [json.loads(line) for line in text_lines(path)]


def name_of_file(identifier: str) -> str:
    """A name for the file that belongs to an identifier, which may be any text; different for different identifiers.

    An identifier in lower case without anything special is its own name. Of any other, the name is a readable part of it
    and a hash.
    """
    if PLAIN_NAME.fullmatch(identifier):
        return identifier
    readable = re.sub(r"[^a-z0-9_.+-]+", "-", identifier.lower()).strip(".-")[:60]
    return f"{readable}~{hashlib.sha256(identifier.encode(errors='surrogatepass')).hexdigest()[:16]}"


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A name beside a file, to write to; what is there at the end of the block, if it ends well, becomes the file."""
    beside = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}{HALF}")  # several hosts may share it
    try:
        yield beside
        to_disk(beside)  # or the new name may be on disk before the content when the power fails
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def made_folder(flag: str, path: Path) -> Path:
    """A folder that somebody has named, made if it is not there.

    Raises:
        BadInput: it cannot be one.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(flag, f"{path} cannot be a folder ({error.strerror}).", "Name another one.") from error
    return path


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_disk(path: Path) -> None:
    """Wait until its content would survive a failure of power."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
