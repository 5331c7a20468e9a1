"""Files that appear whole or not at all, whenever the process is killed; hashes of files; folders that somebody has named."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_agents.errors import BadInput

HALF = ".half"
"""Ending of a file that is being written; a kill may leave one."""


def write_whole(path: Path, text: str) -> None:
    """Write beside, then rename: whoever reads sees the old content or the new one."""
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


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
