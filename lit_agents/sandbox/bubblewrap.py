"""Namespaces by bubblewrap: no engine, no image, and nothing to start; every command gets its own world around the work folder.

As root it drops to the user ``nobody`` before it unshares anything, and a control group bounds all processes together; for
anybody else resource limits bound each process by itself, and the sandbox promises less. The work folder is a file system of
limited size for everybody.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from lit_agents.sandbox.base import KILLED, READABLE, TMP_SIZE, WORK, Sandbox
from lit_agents.sandbox.cgroup import Cgroup
from lit_agents.sandbox.cleanup import Janitor
from lit_agents.sandbox.output import Capture, finished, status
from lit_agents.sandbox.syscalls import in_memory, number, program
from lit_agents.sandbox.types import (
    Allowance,
    Ended,
    Guarantee,
    Runtime,
    SandboxError,
    installed_beside,
)
from lit_agents.sandbox.work_folder import WorkFolder

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
JOIN_SESSION_KEYRING = 1
"""Of ``keyctl``, see ``linux/keyctl.h``."""
KEY_LISTS = ("/proc/keys", "/proc/key-users")
"""They name all keys of a user, whatever keyring these are in."""
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
        self._folder: WorkFolder | None = None
        self._launcher: ThreadPoolExecutor | None = None
        self._filter = b""

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
        self.runtime, self._filter = runtime, program()
        self._home = Path(tempfile.mkdtemp(prefix=f"lit_agents-{os.getpid()}-"))
        self._janitor = Janitor()
        self._janitor.has("folder", str(self._home))
        self._home.chmod(0o755)
        self._job.mkdir()
        for _, place in self._shown():
            Path(place).mkdir()
        if _can_limit():
            self._cgroup = Cgroup.made(self.allowance)
            for folder in self._cgroup.folders:
                self._janitor.has("cgroup", str(folder))
        # a program has the session keyring of the thread that starts it, and ends with that thread
        self._launcher = ThreadPoolExecutor(1, initializer=_join_new_keyring)
        self.empty()

    def empty(self) -> None:
        """Have a new one, however much is in the old one."""
        if self._folder:
            self._folder.close()
        self._folder = None
        self._folder = WorkFolder(self._job, self.allowance.work_size, self._shown() if os.geteuid() == 0 else ())

    def execute(
        self, argv: list[str], variables: Mapping[str, str], stdin: bytes, timeout: float, sink: Capture
    ) -> Ended:
        """One bubblewrap; at its end the kernel kills all that is left in its namespaces."""
        if self._folder is None or self._launcher is None:
            raise SandboxError("the sandbox is not open")
        kills = self._cgroup.kills if self._cgroup else 0
        with in_memory(self._filter) as read_once:
            command = [*self._folder.entering, "sh", "-ec", self._script(argv, variables, read_once)]
            # what goes wrong before the program is said on its own error output, which is that of the program, too
            process = self._launcher.submit(_started, command, read_once).result()
        in_time = finished(process, stdin, timeout, sink, lambda: _end(process))
        killed = (self._cgroup.kills if self._cgroup else 0) > kills
        if not self._folder.is_there:
            raise SandboxError("the process that keeps the work folder is gone")
        return Ended(status(process.returncode) if in_time else KILLED, not in_time, killed)

    def kill(self) -> None:
        """Nothing survives its command."""

    def close(self) -> None:
        """The work folder ends with its process; all else that was made is the janitor's."""
        if self._folder:
            self._folder.close()
        if self._janitor:
            self._janitor.close()
        if self._launcher:
            self._launcher.shutdown()
        self._folder = self._janitor = self._cgroup = self._launcher = None

    @property
    def _job(self) -> Path:
        return self._home / "job"

    def _shown(self) -> list[tuple[str, str]]:
        """Folders of the host, and where root shows them.

        One that ``nobody`` may not reach, in root's home for instance, is not reached under its own name.
        """
        return [(folder, str(self._home / str(place))) for place, folder in enumerate(self.runtime.shown)]

    def _script(self, argv: list[str], variables: Mapping[str, str], read_once: int) -> str:
        """Lines of shell that end as bubblewrap."""
        as_root = os.geteuid() == 0
        bubble = [*ISOLATED, "--seccomp", str(read_once)]
        bubble += ["--ro-bind", self._root, "/"] if self._root else HOST_USR
        bubble += ["--proc", "/proc", "--dev", "/dev"]
        for path in filter(os.path.exists, KEY_LISTS):
            bubble += ["--ro-bind", "/dev/null", path]
        for folder in ("/dev/shm", "/tmp"):
            bubble += ["--size", str(TMP_SIZE), "--tmpfs", folder]
        for path in () if self._root else READABLE:
            bubble += ["--ro-bind-try", path, path]
        for folder, place in self._shown():
            bubble += ["--ro-bind", place if as_root else folder, folder]
        for path in () if self._root else installed_beside(self.runtime):
            bubble += ["--tmpfs", path, "--remount-ro", path]
        bubble += ["--bind", str(self._job), WORK, "--remount-ro", "/dev", "--remount-ro", "/"]
        # without the last one a bubblewrap would be in there, and with it the host's environment
        bubble += ["--chdir", WORK, "--clearenv", "--as-pid-1"]
        for name, value in variables.items():
            bubble += ["--setenv", name, value]
        limits = ["prlimit", f"--fsize={self.allowance.file_size}", "--core=0", "--nofile=1024"]
        if not self._cgroup:
            limits += [f"--as={self.allowance.memory}", f"--nproc={self.allowance.processes}"]
        bubbled = [*limits, *bubble, *WAIT, *argv]
        if not as_root:  # root's work folder no command can close to the next one; anybody else's is opened again
            return shlex.join(["chmod", "1777", str(self._job)]) + f"\nexec {shlex.join(bubbled)}"
        nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        lines = [f"echo 0 > {folder}/cgroup.procs" for folder in (self._cgroup.folders if self._cgroup else ())]
        return "\n".join([*lines, f"exec {shlex.join([*nobody, *bubbled])}"])


def _started(command: list[str], inherited: int) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, pass_fds=(inherited,))


def _join_new_keyring() -> None:
    """Leave this thread's session keyring; where that fails, there are no keyrings to be had."""
    ctypes.CDLL(None).syscall(ctypes.c_long(number("keyctl")), ctypes.c_int(JOIN_SESSION_KEYRING), None)


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
