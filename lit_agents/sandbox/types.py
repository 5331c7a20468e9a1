"""What a sandbox is asked for, what it promises, and how a command in it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from lit_agents.errors import BadInput


class Guarantee(Enum):
    """What a sandbox may promise. The conformance tests attack every promise that a backend makes."""

    FILES_HIDDEN = "the host's own files and secrets cannot be read"
    WRITES_CONFINED = "only the work folder and /tmp can be written"
    NO_NETWORK = "nothing outside can be reached, the host neither"
    PROCESSES_HIDDEN = "the host's processes can be neither seen nor signalled"
    UNPRIVILEGED = "root cannot be had"
    MEMORY_LIMITED = "all processes together hold no more memory than is allowed"
    PROCESSES_LIMITED = "there are no more processes than are allowed"
    CPU_LIMITED = "all processes together use no more of the processors than is allowed"
    ALL_KILLED = "after a deadline nothing runs on that the command had started"
    FILES_LIMITED = "the work folder, /tmp and /dev/shm hold no more bytes than is allowed, of all files together"
    CALLS_REFUSED = "keys, AF_VSOCK, io_uring, userfaultfd, bpf and performance events cannot be used"


class SandboxError(RuntimeError):
    """The sandbox itself is broken: the episode cannot go on, and it is nobody's fault but the machinery's."""


class Unreadable(SandboxError):
    """The work folder cannot be copied out although the sandbox works: that is the fault of whoever filled the folder."""


BYTES_PER_FILE = 4096
"""A folder of limited size holds one file, folder or link for so many of its bytes: empty ones take memory, too."""


def bounds(size: int) -> str:
    """Options of a ``tmpfs`` that holds ``size`` bytes."""
    return f"size={size},nr_inodes={max(64, size // BYTES_PER_FILE)}"


@dataclass(frozen=True)
class Allowance:
    """What all processes of a sandbox may use.

    Attributes:
        memory: bytes.
        processes: how many at once.
        cpus: processors, e.g. 0.5.
        file_size: bytes of one file.
        work_size: bytes of all files in the work folder. It is in memory and counts there too, so it is at most half of it; a
            `SubprocessSandbox` does not limit it.
        at_once: how many commands run at once on this machine, in all sandboxes of all processes; by default one per core.
            The others wait, and waiting takes nothing of the time they have.
    """

    memory: int = 1 << 30
    processes: int = 128
    cpus: float = 1.0
    file_size: int = 256 << 20
    work_size: int = 256 << 20
    at_once: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, value in vars(self).items():
            if value is not None and value <= 0:
                raise BadInput(f"allowance.{name}", f"{value} is not above 0.", "Give it a positive value.")
        if self.work_size > self.memory // 2:  # a full work folder would leave no memory for any command
            reason = (
                f"{self.work_size} bytes are more than half of the {self.memory} bytes of memory, where the files are."
            )
            raise BadInput("allowance.work_size", reason, f"Give at most {self.memory // 2}, or more memory.")


@dataclass(frozen=True)
class Runtime:
    """What commands find installed.

    Attributes:
        shown: folders of the host that can be read, under their own names.
        path: folders that come first in ``PATH``.
        variables: more of the environment; ``{work}`` in a value is the work folder.
        prelude: a line of shell before every command, e.g. one that activates an environment.
        image: of a container; other backends have none.
    """

    shown: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    prelude: str = ""
    image: str = ""


def installed_beside(runtime: Runtime) -> list[str]:
    """Folders of the host with packages that no task asked for; one of them may be the very package that is to be repaired.

    What is shown of an interpreter has them, and so has ``/usr``; those of virtual environments are what tests need.
    """
    if runtime.image:
        return []
    roots = [Path(folder) for folder in ("/usr", "/usr/local", *runtime.shown)]
    roots = [root for root in roots if not (root / "pyvenv.cfg").is_file()]
    names = ("site-packages", "dist-packages", "ensurepip")
    found = [path for root in roots for name in names for path in root.glob(f"lib/python3*/{name}")]
    found.append(Path("/usr/share/python-wheels"))  # Debian's, of pip and what is inside it
    return sorted({str(path) for path in found if path.is_dir()})


@dataclass(frozen=True)
class Completed:
    """How a command ended.

    Attributes:
        code: exit status; 128 + n after signal n; 137 where it was killed.
        output: what it wrote to standard output and error, in the order written: the first and the last part of it.
        lost: bytes between those two parts that were not kept.
        timed_out: its deadline had passed.
        out_of_memory: something in there was killed for holding too much, as far as the system tells.
        seconds: that it ran, without what it waited before.
    """

    code: int
    output: bytes
    lost: int = 0
    timed_out: bool = False
    out_of_memory: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Ended:
    """How a program ended; see `Completed`."""

    code: int
    timed_out: bool = False
    out_of_memory: bool = False
