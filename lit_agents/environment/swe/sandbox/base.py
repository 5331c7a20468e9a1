"""A place in which an agent's commands run: one small interface, and what each backend promises behind it.

A backend says how one program is started in there (`Sandbox.execute`), and nothing else. Files go in and out as tar archives
through the sandbox's own ``tar``, so that nothing on the host ever follows a link or opens a name that an agent has made.
"""

from __future__ import annotations

import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import ClassVar

from lit_agents.environment.swe.sandbox.capture import Capture
from lit_agents.environment.swe.sandbox.slot import slot
from lit_agents.environment.swe.sandbox.terms import (
    Allowance,
    Completed,
    Ended,
    Guarantee,
    Runtime,
    SandboxError,
    TooLarge,
)

ARCHIVE_CAP = 256 << 20
"""Bytes of the largest work folder that is copied out."""
COPY_TIMEOUT = 60.0
"""Seconds for copying files in or out."""
WORK = "/testbed"
"""The work folder, as in the images of SWE-Gym; where a sandbox can choose its name."""
TMP_SIZE = 64 << 20
READABLE = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types")
"""Of the host, beside its ``/usr``."""
KILLED = 137
"""Exit status after SIGKILL."""


class Sandbox(ABC):
    """A context manager. Not for several threads at once. Picklable until it is opened.

    Args:
        allowance: what it may use.
    """

    RUNS_IMAGES: ClassVar[bool] = False
    """Whether it is a container."""
    FOLDERS: ClassVar[str] = "."
    """What can be written and stays from one command to the next, as shell words."""

    def __init__(self, allowance: Allowance | None = None) -> None:
        self.allowance = allowance or Allowance()
        self.runtime = Runtime()

    @property
    @abstractmethod
    def guarantees(self) -> frozenset[Guarantee]:
        """What it promises on this machine."""

    @property
    @abstractmethod
    def work(self) -> str:
        """The work folder, as commands see it."""

    @abstractmethod
    def trouble(self) -> str:
        """Why it cannot work here; empty if it does. Tried, not guessed."""

    @abstractmethod
    def open(self, runtime: Runtime) -> None:
        """Make it, with an empty work folder.

        Raises:
            SandboxError: it cannot be made.
        """

    @abstractmethod
    def execute(
        self, argv: list[str], variables: Mapping[str, str], stdin: bytes, timeout: float, sink: Capture
    ) -> Ended:
        """Run one program in the work folder; whatever it writes goes into ``sink``.

        Raises:
            SandboxError: it could not be started, or the sandbox is gone.
        """

    @abstractmethod
    def kill(self) -> None:
        """End all that runs in it; it can be used afterwards."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind. May be called twice, and before `open`."""

    def image_files(self, image: str) -> bytes:
        """The work folder of an image, as an archive.

        Raises:
            SandboxError: this sandbox runs no images, or that one cannot be had.
        """
        raise SandboxError(f"a {type(self).__name__} runs no images, such as {image}")

    def copy(self) -> Sandbox:
        """Another one like it, not open."""
        return type(self)(self.allowance)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, command: str, timeout: float, *, cap: int = 1 << 20, stdin: bytes = b"") -> Completed:
        """Run a line or a script of bash in the work folder; nothing but files remains for the next one.

        Args:
            timeout: seconds until everything it started is killed.
            cap: bytes of output that are kept, half of them from its beginning.
        """
        sink = Capture(cap)
        variables = {name: value.replace("{work}", self.work) for name, value in self.runtime.variables.items()}
        variables = {"HOME": self.work, "LANG": "C.UTF-8", "PATH": self._path(), "TERM": "dumb"} | variables
        script = f"{self.runtime.prelude}\n{command}" if self.runtime.prelude else command
        with slot(self.allowance.at_once):
            start = time.monotonic()
            ended = self.execute(["bash", "-c", script], variables, stdin, timeout, sink)
            seconds = time.monotonic() - start
        return Completed(ended.code, sink.kept(), sink.lost, ended.timed_out, ended.out_of_memory, seconds)

    def reset(self, archive: bytes) -> None:
        """Kill what runs, empty the work folder and unpack an archive into it.

        Raises:
            SandboxError: that did not work.
        """
        self.kill()
        own = f'find {self.FOLDERS} -xdev -mindepth 1 -user "$(id -u)"'  # folders of the host may be shown below /tmp
        emptied = f"{own} -type d ! -perm -700 -exec chmod u+rwx {{}} \\;; {own} -delete"
        self._succeed(f"{emptied} && tar -xf -", archive, "the work folder could not be set up")

    def put(self, archive: bytes) -> None:
        """Unpack an archive over what is in the work folder.

        Raises:
            SandboxError: that did not work.
        """
        self._succeed("tar -xf - --unlink-first", archive, "files could not be copied in")

    def get(self, paths: Sequence[str] = (".",)) -> bytes:
        """What is at paths in the work folder, by default all of it, as an archive; a repository's history is left out.

        Raises:
            SandboxError: that did not work.
        """
        self.kill()
        sink = Capture(ARCHIVE_CAP)
        # up to 2: something is not there, or cannot be read; that is told from what the sandbox itself ends with
        script = f"tar -cf - --ignore-failed-read --exclude=./.git -- {shlex.join(paths)} 2>/dev/null; test $? -le 2"
        ended = self.execute(["sh", "-c", script], self._bare(), b"", COPY_TIMEOUT, sink)
        archive = sink.kept()
        if sink.lost:
            raise TooLarge(f"the work folder is {sink.lost} bytes too large to be copied out")
        if ended.timed_out or ended.code:
            raise SandboxError(f"the work folder could not be copied out (exit code {ended.code})")
        return archive

    def _succeed(self, script: str, stdin: bytes, trouble: str) -> None:
        sink = Capture(4000)
        ended = self.execute(["sh", "-c", script], self._bare(), stdin, COPY_TIMEOUT, sink)
        if ended.code or ended.timed_out:
            said = sink.kept().decode(errors="replace").strip()
            raise SandboxError(
                f"{trouble} (exit code {ended.code}{', out of time' if ended.timed_out else ''}): {said[-500:]}"
            )

    def _bare(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "HOME": self.work}

    def _path(self) -> str:
        return ":".join([*self.runtime.path, "/usr/local/bin", "/usr/bin", "/bin"])
