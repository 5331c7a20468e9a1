"""A file from a URL: resumed where it was cut off, checked, and there only when it is whole."""

from __future__ import annotations

import hashlib
import http.client
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from filelock import FileLock

from lit_agents.errors import BadInput
from lit_agents.system.files import hash_of

PIECE = 1 << 20
SILENCE = 30.0  # seconds until a connection is given up


def fetched(url: str, folder: Path, sha256: str = "") -> Path:
    """The file of a URL in a folder; downloaded unless it is there.

    Args:
        url: http, https or file.
        folder: where it is kept, and what there is of it meanwhile.
        sha256: of its content; empty: not checked, besides its length.

    Raises:
        BadInput: it cannot be had, or is not what it should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{url.rstrip('/').rpartition('/')[2] or 'file'}"[:120]
    path = folder / name
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            part = path.with_name(f"{name}.part")
            try:
                _download(url, part)
            except (OSError, ValueError, http.client.HTTPException) as error:  # urllib's errors among them
                there = part.stat().st_size if part.is_file() else 0
                reason = f"it cannot be downloaded ({error}); {there:,} bytes of it are there."
                raise BadInput(
                    url, reason, "Run the same command again: it goes on there. Or name a local file."
                ) from error
            part.rename(path)
    try:
        check_sha256(path, sha256, url)
    except BadInput:
        path.unlink()  # or it would be there for the next try
        raise
    return path


def check_sha256(path: Path, sha256: str, named: str) -> None:
    """Is it the file that was meant? No check where no hash is given.

    Raises:
        BadInput: no.
    """
    if not sha256:
        return
    found = hash_of(path)
    if found != sha256.lower():
        raise BadInput(named, f"its sha256 is {found}, not {sha256}.", "Check the hash and where the file comes from.")


def _download(url: str, part: Path) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=SILENCE)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # nothing after what is there: it is whole, or it is of another file
            raise
        part.unlink()
        return _download(url, part)
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:
        have = file.tell()
        left = answer.headers.get("Content-Length")
        whole = have + int(left) if left else None
        _copy(answer, file, have, whole)
        if whole is not None and file.tell() != whole:
            raise OSError(f"the connection ended after {file.tell():,} of {whole:,} bytes")
    return None


def _copy(answer: IO[bytes], file: IO[bytes], have: int, whole: int | None) -> None:
    """With a line on stderr every few seconds."""
    said = time.monotonic()
    while piece := answer.read(PIECE):
        file.write(piece)
        have += len(piece)
        if time.monotonic() - said > 2:
            said = time.monotonic()
            of = f" of {whole / 1e6:,.0f}" if whole else ""
            print(f"downloaded {have / 1e6:,.0f}{of} MB", file=sys.stderr, flush=True)
