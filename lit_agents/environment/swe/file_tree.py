"""The files of a repository as one value: packed for a sandbox, read back from it, and compared.

An archive that comes out of a sandbox is only ever read in memory here; nothing in it is written to the host.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

IGNORED = ("__pycache__", ".git", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache")
"""Folders that are no part of a repository's content."""


@dataclass(frozen=True)
class File:
    """One file: its content, or where it points to."""

    data: bytes
    executable: bool = False
    is_link: bool = False


Tree = Mapping[str, File]
"""By path, with slashes."""
Change = Mapping[str, File | None]
"""By path; None for a file that is deleted."""


def packed(change: Change) -> bytes:
    """A tar archive, the same bytes for the same files; deleted ones are not in it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, file in sorted(change.items()):
            if file is None:
                continue
            entry = tarfile.TarInfo(path)
            entry.mode = 0o755 if file.executable else 0o644
            if file.is_link:
                entry.type, entry.linkname = tarfile.SYMTYPE, file.data.decode(errors="surrogateescape")
                archive.addfile(entry)
                continue
            entry.size = len(file.data)
            archive.addfile(entry, io.BytesIO(file.data))
    return data.getvalue()


def unpacked(archive: bytes) -> dict[str, File]:
    """Regular files and links of an archive, without what no repository holds; hard links are files of their own."""
    found: dict[str, File] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for entry in tar:
            path = entry.name.removeprefix("./")
            if any(part in IGNORED or part == ".." for part in path.split("/")) or path.startswith("/"):
                continue
            if entry.issym():
                found[path] = File(entry.linkname.encode(errors="surrogateescape"), is_link=True)
            elif entry.islnk():
                target = entry.linkname.removeprefix("./")
                if target in found:
                    found[path] = found[target]
            elif entry.isfile() and (content := tar.extractfile(entry)):
                found[path] = File(content.read(), bool(entry.mode & 0o100))
    return found


def is_source(path: str) -> bool:
    """Whether a repository would hold it; what an installation leaves beside it is none."""
    return not any(part in IGNORED or part.endswith(".egg-info") for part in path.split("/"))


def read_folder(folder: Path) -> dict[str, File]:
    """All files of a folder that is trusted."""
    found: dict[str, File] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not is_source(name):
            continue
        if path.is_symlink():
            found[name] = File(str(path.readlink()).encode(), is_link=True)
        elif path.is_file():
            found[name] = File(path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


def write_folder(tree: Tree, folder: Path) -> None:
    """A tree that is trusted, as files."""
    for name, file in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.is_link:
            path.symlink_to(file.data.decode(errors="surrogateescape"))
            continue
        path.write_bytes(file.data)
        path.chmod(0o755 if file.executable else 0o644)


def changes(before: Tree, after: Tree) -> dict[str, File | None]:
    """What turns one into the other."""
    gone = {path: None for path in before if path not in after}
    return gone | {path: file for path, file in after.items() if before.get(path) != file}


def changed(tree: Tree, change: Change) -> dict[str, File]:
    """A tree with a change made to it."""
    merged = dict(tree) | dict(change)
    return {path: file for path, file in merged.items() if file is not None}
