"""No sandbox at all: commands run as the user who runs this. For code that is trusted, and for tests of what is built on it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lit_agents.sandbox.base import KILLED, Sandbox
from lit_agents.sandbox.cleanup import Janitor
from lit_agents.sandbox.output import Capture, finished, status
from lit_agents.sandbox.types import Allowance, Ended, Guarantee, Runtime, SandboxError


class SubprocessSandbox(Sandbox):
    """A temporary folder and a process group; it is never chosen by itself, and promises nothing.

    Memory (per process), file size and time are limited against accidents.
    """

    def __init__(self, allowance: Allowance | None = None) -> None:
        super().__init__(allowance)
        self._janitor: Janitor | None = None
        self._home = ""

    @property
    def guarantees(self) -> frozenset[Guarantee]:
        """None."""
        return frozenset()

    @property
    def work(self) -> str:
        """A temporary folder."""
        return self._home

    def trouble(self) -> str:
        """It works wherever Python does."""
        return ""

    def open(self, runtime: Runtime) -> None:
        """Makes the folder."""
        self.close()
        self.runtime = runtime
        self._home = tempfile.mkdtemp(prefix=f"lit_agents-{os.getpid()}-")
        self._janitor = Janitor()
        self._janitor.has("folder", self._home)

    def execute(
        self, argv: list[str], variables: Mapping[str, str], stdin: bytes, timeout: float, sink: Capture
    ) -> Ended:
        """A process group of its own, all of which is killed when its first process has ended."""
        if self._janitor is None:
            raise SandboxError("the sandbox is not open")
        self._restore_folder()
        limits = f"ulimit -v {self.allowance.memory >> 10}; ulimit -c 0; ulimit -f {self.allowance.file_size >> 9}"
        process = subprocess.Popen(
            ["sh", "-c", f'{limits}; exec "$@"', "sh", *argv],
            cwd=self._home,
            env=dict(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._janitor.has("group", str(process.pid))

        def kill() -> None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

        in_time = finished(process, stdin, timeout, sink, kill)
        self._janitor.lost("group", str(process.pid))
        return Ended(status(process.returncode) if in_time else KILLED, not in_time)

    def _restore_folder(self) -> None:
        """A command may have removed, replaced or locked its own work folder."""
        home = Path(self._home)
        if home.is_symlink() or not home.is_dir():
            home.unlink(missing_ok=True)
            home.mkdir()
        home.chmod(0o700)

    def kill(self) -> None:
        """Its process group ended with its command; what left the group cannot be found."""

    def close(self) -> None:
        """All that was made is the janitor's."""
        if self._janitor:
            self._janitor.close()
        self._janitor = None
