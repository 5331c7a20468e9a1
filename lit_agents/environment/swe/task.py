"""One repository to repair: what an episode starts with, what is hidden from the agent, and what it is graded by."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lit_agents.environment.swe.file_tree import Change, File, changed, packed, unpacked
from lit_agents.errors import BadInput
from lit_agents.system.files import write_whole, written_beside

HELD_OUT = "held_out"
"""The label of what nobody may train on."""


@dataclass(frozen=True)
class Requirements:
    """What the repository's tests need: an image that has it all, or a virtual environment that can be made.

    Attributes:
        image: name of a container image, empty if there is none.
        python: version of Python, e.g. ``3.9``; empty: the one that runs this.
        install: arguments of pip, one call each.
        variables: of the environment.
        commands: of the shell, after that, in the repository's folder.
        key: repository and version, where what is installed includes the repository itself; the agent's files come first.
    """

    image: str = ""
    python: str = ""
    install: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Everything about one task; one JSON file, with the tree it shares with others beside it.

    Attributes:
        statements: what the agent is told, by how much help it is given: one text if there is only one.
        tree: hash of the archive of the repository before ``start`` is applied.
        start: what the agent's copy differs in; a generated bug.
        fix: what repairs the agent's copy; never shown.
        tests: what is different in the tests that grade it; empty if they are those of the agent's copy.
        command: how the tests are run, with a place for ``{plugin}``.
        seconds: what that took when all was well.
        made_of: hash of the row it was made of; empty for a generated one.
    """

    id: str
    repo: str
    statements: tuple[str, ...]
    tree: str
    start: Change
    fix: Change
    tests: Change
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    command: str
    seconds: float
    requirements: Requirements = field(default_factory=Requirements)
    labels: Mapping[str, str] = field(default_factory=dict)
    made_of: str = ""

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        write_whole(path, json.dumps(self._fields(), indent=1, sort_keys=True) + "\n")

    def digest(self) -> str:
        """The same wherever the same task is made: without how fast the machine was."""
        fields = self._fields()
        del fields["seconds"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = asdict(self)
        for name in ("start", "fix", "tests"):
            fields[name] = {path: _written(file) for path, file in getattr(self, name).items()}
        if not self.requirements.commands:
            del fields["requirements"]["commands"]  # tasks without any are what they were before there could be some
        return fields

    @staticmethod
    def load(path: Path) -> Problem:
        """What was saved.

        Raises:
            BadInput: missing, or not what it should be.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            for name in ("start", "fix", "tests"):
                fields[name] = {path: _read(file) for path, file in fields[name].items()}
            for name in ("statements", "fail_to_pass", "pass_to_pass"):
                fields[name] = tuple(fields[name])
            needs = fields.pop("requirements")
            listed = {name: tuple(needs.get(name, ())) for name in ("install", "commands")}
            return Problem(**fields, requirements=Requirements(**needs | listed))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"it is no problem of this package ({type(error).__name__}: {error})."
            raise BadInput(str(path), reason, "Delete it, and make the tasks again.") from error

    def before(self, trees: Path) -> dict[str, File]:
        """The repository as the agent finds it.

        Raises:
            BadInput: its archive is missing or another one.
        """
        return changed(load_tree(trees, self.tree), self.start)


def save_tree(trees: Path, tree: Mapping[str, File]) -> str:
    """Keep the files of a repository, once; the hash it is found by."""
    archive = packed(tree)
    name = hashlib.sha256(archive).hexdigest()
    path = trees / f"{name}.tar"
    if not path.is_file():
        trees.mkdir(parents=True, exist_ok=True)
        with written_beside(path) as beside:
            beside.write_bytes(archive)
    return name


def load_tree(trees: Path, name: str) -> dict[str, File]:
    """The files that were kept.

    Raises:
        BadInput: they are missing or other ones.
    """
    path = trees / f"{name}.tar"
    archive = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(archive).hexdigest() != name:
        reason = "this repository is not what it was." if archive else "this repository is missing."
        raise BadInput(str(path), reason, "Make the tasks again.")
    return unpacked(archive)


def _written(file: File | None) -> Any:
    if file is None:
        return None
    kind = ("link" if file.is_link else "executable" if file.executable else "file",)
    try:
        return [*kind, "text", file.data.decode()]
    except UnicodeDecodeError:
        return [*kind, "base64", base64.b64encode(file.data).decode()]


def _read(written: Any) -> File | None:
    if written is None:
        return None
    kind, coding, text = written
    data = text.encode() if coding == "text" else base64.b64decode(text)
    return File(data, kind == "executable", kind == "link")
