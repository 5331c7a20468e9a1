"""Packages from PyPI whose own tests tell when something in them is broken: pure Python, with tests that take seconds."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

from lit_agents.environment.swe.file_tree import File, Tree, packed, read_folder, unpacked
from lit_agents.errors import BadInput
from lit_agents.system.download import fetched

INDEX = "https://pypi.org/simple/"
TESTS = re.compile(
    r"(^|/)((unit|_)?tests?([-_]?(data|files|cases|utils))?|testing)/|(^|/)(test_[^/]*|[^/]*_test|tests?|conftest)\.py$"
)
NO_SOURCE = re.compile(
    r"(^|/)(setup|noxfile|_?version|__main__)\.py$|^(docs?|examples?|benchmarks?|scripts?|bin|misc)/"
)


@dataclass(frozen=True)
class Package:
    """One release, or code that is here.

    Attributes:
        sha256: of its source archive; empty: not checked.
        path: of a folder or a source archive; empty: it comes from the index.
    """

    name: str
    version: str
    sha256: str = ""
    path: str = ""

    @property
    def title(self) -> str:
        """Name and version, as a folder's name."""
        return f"{self.name}-{self.version}"

    @staticmethod
    def parsed(text: str) -> Package:
        """From ``name==version``, ``name==version#sha256``, or a path that has a slash in it; code there is known by its hash.

        Raises:
            BadInput: it is none of these, or nothing is there.
        """
        if "/" in text:
            return _local(Path(text).expanduser())
        match = re.fullmatch(r"([\w.-]+)==([\w.!+]+)(?:#([0-9a-f]{64}))?", text.strip())
        if not match:
            raise BadInput("packages", f"{text!r} names no release.", "Write it like toolz==1.0.0, or ./folder.")
        return Package(match[1], match[2], match[3] or "")


def source_of(package: Package, folder: Path) -> dict[str, File]:
    """The files of its source archive, downloaded to a folder if it is not there.

    Raises:
        BadInput: it cannot be had, or is not what it should be.
    """
    if package.path and Path(package.path).is_dir():
        return read_folder(Path(package.path))
    archive = Path(package.path) if package.path else fetched(_url(package), folder, package.sha256)
    try:
        files = unpacked(gzip.decompress(archive.read_bytes()))
    except Exception as error:  # whatever tarfile, gzip and zlib have to say about it
        reason = f"it is no source archive ({type(error).__name__}: {error})."
        raise BadInput(str(archive), reason, "Delete it, and run this again.") from error
    return {path.partition("/")[2]: file for path, file in files.items() if "/" in path}


def is_test(path: str) -> bool:
    """Whether a file belongs to the tests; agents may change such files, but are not graded with them."""
    return bool(TESTS.search(path))


def code(tree: Tree) -> Mapping[str, str]:
    """The package's own modules: path -> text."""
    found: dict[str, str] = {}
    for path, file in sorted(tree.items()):
        if path.endswith(".py") and not file.is_link and not is_test(path) and not NO_SOURCE.search(path):
            try:
                found[path] = file.data.decode()
            except UnicodeDecodeError:
                continue
    return found


def _local(path: Path) -> Package:
    if path.is_dir():
        content = packed(read_folder(path))
    elif path.is_file():
        content = path.read_bytes()
    else:
        raise BadInput(
            "packages", f"there is no {path}.", "Name a folder or a source archive, or a release like toolz==1.0.0."
        )
    name = re.sub(r"[^\w.-]+", "_", path.resolve().name.removesuffix(".tar.gz"))
    return Package(name, hashlib.sha256(content).hexdigest()[:12], path=str(path))


def _url(package: Package) -> str:
    """Where its source archive is, as the index says."""
    page = urljoin(INDEX, f"{re.sub(r'[-_.]+', '-', package.name).lower()}/")
    request = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            files = json.load(answer)["files"]
    except (OSError, ValueError, KeyError) as error:
        reason = f"the index cannot be asked about it ({error})."
        raise BadInput(f"{package.name}=={package.version}", reason, "Check its name and the network.") from error
    wanted = f"{_plain(package.name)}-{package.version}.tar.gz"
    for file in files:
        if _plain(file["filename"]) == _plain(wanted):
            return urljoin(page, str(file["url"]))
    raise BadInput(
        f"{package.name}=={package.version}", "it has no source archive.", "Choose another release or package."
    )


def _plain(name: str) -> str:
    return re.sub(r"[-_]+", "_", name).lower()
