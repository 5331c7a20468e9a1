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

from lit_agents.sandbox.concurrency import slot
from lit_agents.sandbox.output import Capture
from lit_agents.sandbox.types import (
    Allowance,
    Completed,
    Ended,
    Guarantee,
    Runtime,
    SandboxError,
    Unreadable,
)

ARCHIVE_CAP = 256 << 20
"""Bytes of the largest work folder that is copied out."""
COPY_TIMEOUT = 60.0
"""Seconds for copying files in or out."""
CHECK_TIMEOUT = 10.0
"""Seconds in which a sandbox that works, on a machine that is not overloaded, copies nothing out."""
WORK = "/testbed"
"""The work folder, as in the images of SWE-Gym; where a sandbox can choose its name."""
TMP_SIZE = 64 << 20
READABLE = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types")
"""Of the host, beside its ``/usr``."""
KILLED = 137
"""Exit status after SIGKILL."""


COPY_OUT = "printf begun; {{ {tar}; test $? -le 2 && printf copied; }} | head -c {cap}"
"""Says that it was started, and that the archive is whole; stops where nothing more is wanted."""
BEGUN, WHOLE = b"begun", b"copied"


class _CopyFailed(SandboxError):
    """The work folder was not copied out, and it is not yet known why."""


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
        try:
            self.kill()
            self.empty()
        except SandboxError:  # whatever an agent has left, a new one does not have it
            self.open(self.runtime)
        self._succeed("tar -xf -", archive, "the work folder could not be set up")

    def empty(self) -> None:
        """Remove everything an agent can have made.

        Raises:
            SandboxError: that did not work.
        """
        own = f'find {self.FOLDERS} -xdev -mindepth 1 -user "$(id -u)"'  # folders of the host may be shown below /tmp
        script = f"{own} -type d ! -perm -700 -exec chmod u+rwx {{}} \\;; {own} -delete"
        self._succeed(script, b"", "the work folder could not be emptied")

    def put(self, archive: bytes) -> None:
        """Unpack an archive over what is in the work folder.

        Raises:
            SandboxError: that did not work.
        """
        self._succeed("tar -xf - --unlink-first", archive, "files could not be copied in")

    def get(self, paths: Sequence[str] = (".",)) -> bytes:
        """What is at paths in the work folder, by default all of it, as an archive; a repository's history is left out.

        Whatever keeps it from being read (too many bytes, files or folders, names that are too long) is the fault of whoever
        put it there, as long as another sandbox like this one works at the same time. A failure that the content does not
        explain has to come twice.

        Raises:
            Unreadable: it cannot be copied out because of what is in it.
            SandboxError: it cannot be copied out because the sandbox, or its machine, does not work.
        """
        self.kill()
        reason = ""
        for _ in range(2):
            try:
                return self._copied_out(f"-- {shlex.join(paths)}", COPY_TIMEOUT)
            except _CopyFailed as error:
                reason = str(error)
                self._check_another()
        raise Unreadable(reason)

    def _copied_out(self, what: str, timeout: float) -> bytes:
        """What tar writes when it is told so, up to the cap.

        Raises:
            Unreadable: that is too much.
            _CopyFailed: tar was started, and did not do it.
            SandboxError: the sandbox does not even start a program.
        """
        sink = Capture(ARCHIVE_CAP + 4000)
        # up to 2: something is not there, or cannot be read; that is told from what the sandbox itself ends with
        tar = f"tar -cf - --ignore-failed-read --exclude=./.git {what} 2>/dev/null"
        ended = self.execute(["sh", "-c", COPY_OUT.format(tar=tar, cap=ARCHIVE_CAP)], self._bare(), b"", timeout, sink)
        written = sink.kept()
        if not written.startswith(BEGUN):
            said = written[:500].decode(errors="replace").strip()
            raise SandboxError(f"the work folder could not be copied out (exit code {ended.code}): {said}")
        if len(written) >= ARCHIVE_CAP:
            raise Unreadable(f"the work folder holds more than the {ARCHIVE_CAP} bytes that are copied out")
        if ended.timed_out:
            raise _CopyFailed(f"the work folder could not be copied out in {timeout:g} seconds")
        if ended.code or not written.endswith(WHOLE):
            raise _CopyFailed(f"the work folder could not be copied out (exit code {ended.code})")
        return written[len(BEGUN) : -len(WHOLE)]

    def _check_another(self) -> None:
        """Open another sandbox like this one and copy nothing out of it.

        Raises:
            SandboxError: that does not work either, or takes so long that no time limit means anything.
        """
        with self.copy() as other:
            other.open(self.runtime)
            other._copied_out("--files-from /dev/null", CHECK_TIMEOUT)

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
