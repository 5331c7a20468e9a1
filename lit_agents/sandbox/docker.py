"""Containers of any engine that speaks Docker's API: dockerd, or podman's service, through ``DOCKER_HOST``.

One container lives for many episodes. Its root is read-only, the work folder and /tmp are in memory, it has no network and no
capability, and all commands run as ``nobody`` under a root who only waits: so one call kills whatever they started.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from lit_agents.sandbox.base import KILLED, READABLE, TMP_SIZE, WORK, Sandbox
from lit_agents.sandbox.cleanup import Janitor
from lit_agents.sandbox.docker_exec import GRACE, ExecStream, connected
from lit_agents.sandbox.docker_images import engine_errors, published, skeleton, work_folder
from lit_agents.sandbox.output import Capture
from lit_agents.sandbox.syscalls import profile
from lit_agents.sandbox.types import (
    Allowance,
    Ended,
    Guarantee,
    Runtime,
    SandboxError,
    bounds,
    installed_beside,
)
from lit_agents.system.processes import identity, is_gone

NOBODY = "65534:65534"
OWNER = "lit_agents.owner"
"""The label that says which process a container belongs to."""
THEN_KILL = '"$@" 2>&1; code=$?; kill -9 -1; cat >/dev/null; exit $code'
"""Run a program, its two outputs as one, so that their order is kept, end all of this user that still runs but this shell, and
read what input is left: podman would take it for an error that nobody does."""
PODMAN = "Podman Engine"
"""What podman's service calls itself."""
NO_MAILBOXES = {
    "kernel.shmmni": "0",
    "kernel.msgmni": "0",
    "kernel.sem": "250 32000 32 0",
    "fs.mqueue.queues_max": "0",
}
"""What is kept in the kernel and in no folder would outlive an episode: none of it can be made."""
SIGNALLED = 128
"""Exit codes from there on are of signals, or pretend to be."""
OOM_KILLS = "cat /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events 2>/dev/null | grep '^oom_kill '"


class DockerSandbox(Sandbox):
    """A container.

    Args:
        allowance: what it may use; the work folder is in memory, so it counts there too.
        url: of the engine; by default ``DOCKER_HOST``, or else Docker's usual socket.
    """

    RUNS_IMAGES = True
    FOLDERS = ". /tmp /dev/shm"

    def __init__(self, allowance: Allowance | None = None, url: str | None = None) -> None:
        super().__init__(allowance)
        self._url = url
        self._client: Any = None
        self._container: Any = None
        self._janitor: Janitor | None = None
        self._oom_kills = 0

    def copy(self) -> DockerSandbox:
        """Another one on the same engine."""
        return type(self)(self.allowance, self._url)

    @property
    def guarantees(self) -> frozenset[Guarantee]:
        """All of them, from an engine that runs as root."""
        return frozenset(Guarantee)

    @property
    def work(self) -> str:
        """As in the images of SWE-Gym."""
        return WORK

    @property
    def url(self) -> str:
        """Where the engine is."""
        return self._url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    def trouble(self) -> str:
        """Asks the engine."""
        try:
            with engine_errors(), closing(self._connected(timeout=10)) as client:
                client.ping()
        except ModuleNotFoundError:
            return "the docker package is not installed (pip install docker)"
        except SandboxError as error:
            return f"no engine at {self.url} ({error})"
        return ""

    def open(self, runtime: Runtime) -> None:
        """Create and start the container, after those that dead processes have left were removed."""
        self.close()
        self.runtime, self._oom_kills = runtime, 0
        with engine_errors():
            self._client = self._connected(timeout=60)
            _sweep(self._client)
            image = published(self._client, runtime.image) if runtime.image else skeleton(self._client)
            is_podman = any(part.get("Name") == PODMAN for part in self._client.version().get("Components") or ())
            with _profile_for(is_podman) as given:
                options = self._options(runtime, given, is_podman)
                self._container = self._client.containers.create(image, **options)
        self._janitor = Janitor()
        self._janitor.has("container", f"{self.url} {self._container.id}")
        with engine_errors():
            self._container.start()

    def execute(
        self, argv: list[str], variables: Mapping[str, str], stdin: bytes, timeout: float, sink: Capture
    ) -> Ended:
        """One program, and at its end the end of all others."""
        limits = f"ulimit -c 0; ulimit -f {self.allowance.file_size >> 9}; "
        command = ["sh", "-c", limits + THEN_KILL, "sh", *argv]
        code, in_time = self._exec(command, variables, stdin, timeout, sink)
        if not in_time or code < SIGNALLED:
            return Ended(code if in_time else KILLED, not in_time)
        self.kill()  # the shell that waited may have been killed by what it waited for
        said = Capture(1000)
        self._exec(["sh", "-c", OOM_KILLS], self._bare(), b"", 10.0, said)
        before, self._oom_kills = self._oom_kills, max([0, *map(int, said.kept().split()[1::2])])
        return Ended(code, out_of_memory=self._oom_kills > before)

    def kill(self) -> None:
        """There is no such call in the API: one more program kills all others of its user, as soon as there is room for it."""
        until = time.monotonic() + GRACE - 3  # the stream is given up then
        while time.monotonic() < until:
            with suppress(SandboxError):
                code, _ = self._exec(["sh", "-c", "kill -9 -1; true"], {}, b"", 10.0, Capture(1000))
                if code == 0:
                    return
        raise SandboxError("a program could not be killed")

    def image_files(self, image: str) -> bytes:
        """From a container that is never started."""
        with engine_errors(), closing(self._connected(timeout=3600)) as client:
            return work_folder(client, image, self._labels())

    def close(self) -> None:
        """The container is the janitor's."""
        if self._janitor:
            self._janitor.close()
        if self._client:
            self._client.close()
        self._janitor = self._client = self._container = None

    def _connected(self, timeout: float) -> Any:
        docker = importlib.import_module("docker")
        connected(self.url).close()  # the package leaves its socket open where nobody answers
        return docker.DockerClient(base_url=self.url, timeout=timeout)

    def _labels(self) -> dict[str, str]:
        return {OWNER: identity(os.getpid())}

    def _exec(
        self, argv: list[str], variables: Mapping[str, str], stdin: bytes, timeout: float, sink: Capture
    ) -> tuple[int, bool]:
        if self._container is None:
            raise SandboxError("the sandbox is not open")
        api = self._client.api
        with engine_errors():
            made = api.exec_create(
                self._container.id, argv, user=NOBODY, workdir=WORK, environment=dict(variables), stdin=bool(stdin)
            )
        in_time = ExecStream(self.url, made["Id"]).converse(stdin, timeout, sink, self.kill)
        with engine_errors():
            found = api.exec_inspect(made["Id"])
        if found["ExitCode"] is None or found["Running"]:
            raise SandboxError("a program ended without an exit code")
        return found["ExitCode"], in_time

    def _options(self, runtime: Runtime, seccomp: str, is_podman: bool) -> dict[str, Any]:
        allowed, shown = self.allowance, list(runtime.shown)
        sizes = {WORK: allowed.work_size, "/tmp": TMP_SIZE, "/dev/shm": TMP_SIZE}
        if not runtime.image:
            shown += ["/usr", *(path for path in READABLE if Path(path).exists())]
        return {
            "entrypoint": ["sleep"],
            "command": ["infinity"],
            "init": True,
            "user": "0:0",
            "network_mode": "none",
            "mem_limit": allowed.memory,
            "memswap_limit": allowed.memory,
            "pids_limit": allowed.processes,
            "nano_cpus": int(allowed.cpus * 1e9),
            "read_only": True,
            "tmpfs": {
                # podman refuses to limit the number of files
                **{
                    path: f"{f'size={size}' if is_podman else bounds(size)},mode=1777,exec"
                    for path, size in sizes.items()
                },
                **dict.fromkeys(installed_beside(runtime), "ro,size=4k"),
            },
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges", f"seccomp={seccomp}"],
            "sysctls": NO_MAILBOXES,
            "volumes": {folder: {"bind": folder, "mode": "ro"} for folder in shown},
            "labels": self._labels(),
        }


@contextmanager
def _profile_for(is_podman: bool) -> Iterator[str]:
    """Our profile of system calls as an engine takes it: Docker its text, podman the path of a file beside the engine.

    See containers/podman#27710.
    """
    if not is_podman:
        yield profile()
        return
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(profile())
        file.flush()
        yield file.name


def _sweep(client: Any) -> None:
    """Remove the containers of processes that are no more; those of other machines that share the engine are left alone."""
    for container in client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True):
        if is_gone(str(container.labels.get(OWNER, ""))):
            with suppress(importlib.import_module("docker.errors").APIError):
                container.remove(force=True, v=True)
