"""Images of containers: the empty one in which the host's programs are shown, and those that are published for rows."""

from __future__ import annotations

import importlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lit_agents.sandbox.base import ARCHIVE_CAP, WORK
from lit_agents.sandbox.types import SandboxError

SKELETON = "lit_agents/skeleton:1"
"""An image of empty folders, in which the host's own ``/usr`` is shown read-only; made when first needed."""
EMPTY = ("usr", "proc", "sys", "dev", "etc", "run", "sbin", "tmp", "testbed")  # in sbin dockerd shows its init
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
FILES = {
    "etc/passwd": "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/testbed:/bin/bash\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


@contextmanager
def engine_errors() -> Iterator[None]:
    """Whatever the engine or the way to it has: the sandbox is broken."""
    errors = importlib.import_module("docker.errors")
    requests = importlib.import_module("requests.exceptions")
    try:
        yield
    except (errors.DockerException, requests.RequestException, OSError) as error:
        raise SandboxError(f"{type(error).__name__}: {error}"[:500]) from error


def skeleton(client: Any) -> str:
    """The image of empty folders."""
    if not _is_there(client, SKELETON):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as archive:
            for name in EMPTY:
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name in ("tmp", "testbed") else 0o755
                archive.addfile(entry)
            for name, target in LINKS.items():
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
            for name, text in FILES.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        client.api.import_image_from_data(data.getvalue(), repository=SKELETON)  # podman ignores a tag of its own
    return SKELETON


def published(client: Any, image: str) -> str:
    """An image, fetched from its registry if the engine does not have it."""
    if not _is_there(client, image):
        name, tag = image.rsplit(":", 1) if ":" in image.rpartition("/")[2] else (image, "latest")
        client.images.pull(name, tag=tag)
    return image


def work_folder(client: Any, image: str, labels: Mapping[str, str]) -> bytes:
    """What an image holds in its work folder, as an archive.

    Args:
        labels: of the container that is made for it, never started, and removed.

    Raises:
        SandboxError: there is too much of it.
    """
    container = client.containers.create(published(client, image), ["true"], labels=dict(labels))
    try:
        pieces, _ = container.get_archive(WORK)
        data = bytearray()
        for piece in pieces:
            data += piece
            if len(data) > 4 * ARCHIVE_CAP:  # with a history, which is left out later
                raise SandboxError(f"{WORK} of {image} holds more than {4 * ARCHIVE_CAP >> 20} MiB")
        return bytes(data)
    finally:
        with suppress(importlib.import_module("docker.errors").APIError):
            container.remove(force=True, v=True)


def _is_there(client: Any, image: str) -> bool:
    with suppress(importlib.import_module("docker.errors").ImageNotFound):
        client.images.get(image)
        return True
    return False
