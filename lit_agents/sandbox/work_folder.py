"""A work folder of limited size: a file system in memory, in a mount namespace that one small process keeps.

Nobody outside sees it. It ends with that process, which ends with its owner, however the owner ends: so no mount stays behind,
and emptying the folder takes the same short time whatever is in it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lit_agents.sandbox.types import SandboxError, bounds

PATIENCE = 10.0
"""Seconds for the end of the process."""
AS_ROOT = shlex.split("unshare --mount --propagation slave")
AS_ANYBODY = shlex.split("bwrap --unshare-user --uid 0 --gid 0 --cap-add ALL --dev-bind / /")
"""Bubblewrap makes the namespaces here because some systems let it, and no other program, make a user namespace."""


class WorkFolder:
    """A limited file system over a folder that is there.

    Args:
        folder: absolute.
        size: bytes of all files in it.
        shown: folders to show somewhere else in the namespace, as root: from, to.

    Raises:
        SandboxError: it cannot be made.
    """

    def __init__(self, folder: Path, size: int, shown: Sequence[tuple[str, str]] = ()) -> None:
        lines = [f"mount -t tmpfs -o {bounds(size)},mode=1777,nosuid,nodev tmpfs {shlex.quote(str(folder))}"]
        lines += [shlex.join(["mount", "--bind", source, target]) for source, target in shown]
        lines.append("echo $$; exec cat")  # which waits for the end of its input
        as_root = os.geteuid() == 0
        command = [*(AS_ROOT if as_root else AS_ANYBODY), "sh", "-ec", "\n".join(lines)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().decode(errors="replace").strip()
        if not said.isdigit():
            self.close()
            raise SandboxError(f"a work folder of {size} bytes cannot be made: {said}")
        user = [] if as_root else ["--user", "--preserve-credentials"]
        self.entering = ["nsenter", "--target", said, *user, "--mount", "--root"]
        """How a command begins that runs where the folder is."""

    @property
    def is_there(self) -> bool:
        """Whether its process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """The folder is gone, once the last command in it has ended. May be called twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
