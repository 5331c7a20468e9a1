"""Namespaces by bubblewrap: no engine, no image, and nothing to start; every command gets its own world around the work folder.

As root it drops to the user ``nobody`` before it unshares anything, and a control group bounds all processes together; for
anybody else resource limits bound each process by itself, and the sandbox promises less.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from lit_agents.environment.swe.sandbox.base import KILLED, READABLE, TMP_SIZE, WORK, Sandbox
from lit_agents.environment.swe.sandbox.capture import Capture, finished, status
from lit_agents.environment.swe.sandbox.cgroup import Cgroup
from lit_agents.environment.swe.sandbox.janitor import Janitor
from lit_agents.environment.swe.sandbox.terms import (
    Allowance,
    Ended,
    Guarantee,
    Runtime,
    SandboxError,
    installed_beside,
)

NOBODY = 65534
ISOLATED = shlex.split(
    "bwrap --unshare-all --unshare-user --disable-userns --uid 1000 --gid 1000 --die-with-parent --new-session --cap-drop ALL"
)
HOST_USR = shlex.split(
    "--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib --symlink usr/lib64 /lib64"
)
WAIT = ("sh", "-c", '"$@"; exit $?', "sh")
"""The first process in there: it waits for the command and takes all others along. Bubblewrap's own would be left as a zombie,
which counts as a process until the machine's init, if there is one, has time for it."""
WITHIN_LIMITS = frozenset({Guarantee.MEMORY_LIMITED, Guarantee.PROCESSES_LIMITED, Guarantee.CPU_LIMITED})


class BubblewrapSandbox(Sandbox):
    """The host's ``/usr`` read-only, the work folder, an empty ``/tmp`` for every command, and nothing else of the host.

    Args:
        allowance: what it may use; without root, per process.
        root: a folder to take for ``/`` instead, with a ``usr`` and an empty ``testbed`` in it.
    """

    def __init__(self, allowance: Allowance | None = None, root: str | None = None) -> None:
        super().__init__(allowance)
        self._root = root
        self._janitor: Janitor | None = None
        self._cgroup: Cgroup | None = None
        self._home = Path()

    def copy(self) -> BubblewrapSandbox:
        """Another one with the same root."""
        return type(self)(self.allowance, self._root)

    @property
    def guarantees(self) -> frozenset[Guarantee]:
        """All of them as root; without root there is no limit on all processes together."""
        return frozenset(Guarantee) - (frozenset() if _can_limit() else WITHIN_LIMITS)

    @property
    def work(self) -> str:
        """As in the images of SWE-Gym."""
        return WORK

    def trouble(self) -> str:
        """Tries it."""
        if not shutil.which("bwrap"):
            return "bwrap is not installed (apt-get install bubblewrap)"
        try:
            with type(self)(self.allowance, self._root) as sandbox:
                sandbox.open(Runtime())
                done = sandbox.run("true", 10)
        except (OSError, SandboxError) as error:
            return str(error)
        return "" if done.code == 0 else done.output.decode(errors="replace").strip()

    def open(self, runtime: Runtime) -> None:
        """A folder beside those of other programs, with the work folder and a place for each of the runtime's in it."""
        self.close()
        self.runtime = runtime
        self._home = Path(tempfile.mkdtemp(prefix=f"lit_agents-{os.getpid()}-"))
        self._janitor = Janitor()
        self._janitor.has("folder", str(self._home))
        self._home.chmod(0o755)
        job = self._home / "job"
        job.mkdir()
        for number, _ in enumerate(runtime.shown):
            (self._home / str(number)).mkdir()
        if _can_limit():
            self._cgroup = Cgroup.made(self.allowance)
            for folder in self._cgroup.folders:
                self._janitor.has("cgroup", str(folder))

    def execute(
        self, argv: list[str], variables: Mapping[str, str], stdin: bytes, timeout: float, sink: Capture
    ) -> Ended:
        """One bubblewrap; at its end the kernel kills all that is left in its namespaces."""
        if self._janitor is None:
            raise SandboxError("the sandbox is not open")
        kills = self._cgroup.kills if self._cgroup else 0
        # as root's no command can close it to the next one; anybody else's is opened again
        (self._home / "job").chmod(0o1777)
        # what goes wrong before the program is said on its own error output, which is that of the program, too
        command = self._command(argv, variables)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        in_time = finished(process, stdin, timeout, sink, lambda: _end(process))
        killed = (self._cgroup.kills if self._cgroup else 0) > kills
        return Ended(status(process.returncode) if in_time else KILLED, not in_time, killed)

    def kill(self) -> None:
        """Nothing survives its command."""

    def close(self) -> None:
        """All that was made is the janitor's."""
        if self._janitor:
            self._janitor.close()
        self._janitor = self._cgroup = None

    def _command(self, argv: list[str], variables: Mapping[str, str]) -> list[str]:
        as_root = os.geteuid() == 0
        shown = [(folder, str(self._home / str(number))) for number, folder in enumerate(self.runtime.shown)]
        bubble = [*ISOLATED, *(["--ro-bind", self._root, "/"] if self._root else HOST_USR)]
        bubble += ["--proc", "/proc", "--dev", "/dev", "--size", str(TMP_SIZE), "--tmpfs", "/tmp"]
        for path in () if self._root else READABLE:
            bubble += ["--ro-bind-try", path, path]
        for folder, place in shown:
            bubble += ["--ro-bind", place if as_root else folder, folder]
        for path in () if self._root else installed_beside(self.runtime):
            bubble += ["--tmpfs", path, "--remount-ro", path]
        bubble += ["--bind", str(self._home / "job"), WORK, "--remount-ro", "/"]
        # without the last one a bubblewrap would be in there, and with it the host's environment
        bubble += ["--chdir", WORK, "--clearenv", "--as-pid-1"]
        for name, value in variables.items():
            bubble += ["--setenv", name, value]
        argv = [*WAIT, *argv]
        limits = ["prlimit", f"--fsize={self.allowance.file_size}", "--core=0", "--nofile=1024"]
        if not self._cgroup:
            limits += [f"--as={self.allowance.memory}", f"--nproc={self.allowance.processes}"]
        if not as_root:
            return [*limits, *bubble, *argv]
        # a folder that nobody may reach, in root's home for instance, is shown through a mount of its own, which is seen by
        # this command alone and is gone with it
        lines = [f"echo 0 > {folder}/cgroup.procs" for folder in (self._cgroup.folders if self._cgroup else ())]
        lines += [shlex.join(["mount", "--bind", folder, place]) for folder, place in shown]
        nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        lines.append(f"exec {shlex.join([*nobody, *limits, *bubble, *argv])}")
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(lines)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process in there, whom bubblewrap waits for; bubblewrap itself if that does not do."""
    with suppress(OSError):
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(2.0)
    process.kill()


@cache
def _can_limit() -> bool:
    """Whether control groups can be made; tried once."""
    if os.geteuid() != 0:
        return False
    try:
        janitor = Janitor()
        for folder in Cgroup.made(Allowance()).folders:
            janitor.has("cgroup", str(folder))
        janitor.close()
    except OSError:
        return False
    return True
