"""System calls that no command in a sandbox may make, as a filter for bubblewrap and as a profile for containers.

What is refused: all that Docker's own profile refuses to a container without capabilities (a profile of ours takes its place),
and what it lets through in some of its versions: ``io_uring``, ``userfaultfd``, and sockets of other families than UNIX, IPv4,
IPv6 and netlink. Virtual machine sockets (``AF_VSOCK``), for instance, belong to no network namespace, and reach the host.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from lit_agents.sandbox.types import SandboxError

REFUSED: dict[str, tuple[int | None, int | None]] = {
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "get_kernel_syms": (177, None),
    "get_mempolicy": (239, 236),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, None),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
}
"""Refused with EPERM; their numbers on x86_64 and on aarch64 (Linux's ``asm/unistd_64.h`` and ``asm-generic/unistd.h``)."""
MACHINES = ("x86_64", "aarch64")
ARCHITECTURES = (0xC000003E, 0xC00000B7)
"""As the kernel names them to a filter: ``AUDIT_ARCH_X86_64`` and ``AUDIT_ARCH_AARCH64`` of ``linux/audit.h``."""
CLONE, CLONE3, SOCKET = (56, 220), (435, 435), (41, 198)
NAMESPACES = 0x7E020000
"""Flags of ``clone`` that make new namespaces. ``clone3`` has them in memory, where no filter can look: there is no such call,
and the C library takes ``clone`` then."""
FAMILIES = (1, 2, 10, 16)
"""Of sockets: UNIX, IPv4, IPv6, netlink."""
NEWER = 451
"""Calls from this number on are younger than the table, so a bubble does not have them; the C library does without. A profile
knows names alone. From ``X32`` on x86_64 has its calls once more, for programs with short addresses."""
X32 = 0x40000000

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""Instructions of the kernel's classic BPF (``linux/bpf_common.h``)."""
ALLOW, FAIL = 0x7FFF0000, 0x00050000
"""Results of a filter (``linux/seccomp.h``); the lower bits of the second one are ``errno``."""
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16
"""Where a filter finds what; of the argument its lower half, which is all the kernel itself looks at here."""


def number(call: str) -> int:
    """Of a system call of `REFUSED`, on this machine.

    Raises:
        SandboxError: it is not known.
    """
    found = REFUSED[call][_machine()]
    if found is None:
        raise SandboxError(f"there is no system call {call} on {platform.machine()}")
    return found


def program() -> bytes:
    """A filter for this machine, as ``bwrap --seccomp`` reads it: an array of the kernel's ``struct sock_filter``.

    Calls of other architectures that the machine can run, too (32 bits, x32), do not exist.

    Raises:
        SandboxError: the numbers of this machine's system calls are not known.
    """
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in _instructions(_machine()))


def _instructions(machine: int) -> Iterator[tuple[int, int, int, int]]:
    """Of each: its code, how many instructions it skips where its condition holds and where not, and its value."""
    none = (RETURN, 0, 0, FAIL | errno.ENOSYS)
    refused, allowed = (RETURN, 0, 0, FAIL | errno.EPERM), (RETURN, 0, 0, ALLOW)
    yield (LOAD, 0, 0, ARCHITECTURE_AT)
    yield (JUMP_EQUAL, 1, 0, ARCHITECTURES[machine])
    yield none
    yield (LOAD, 0, 0, NUMBER_AT)
    yield (JUMP_AT_LEAST, 0, 1, NEWER)
    yield none
    yield (JUMP_EQUAL, 0, 1, CLONE3[machine])
    yield none
    for numbers in REFUSED.values():
        if (call := numbers[machine]) is not None:
            yield (JUMP_EQUAL, 0, 1, call)
            yield refused
    yield (JUMP_EQUAL, 0, 4, CLONE[machine])
    yield (LOAD, 0, 0, FIRST_ARGUMENT_AT)
    yield (JUMP_ANY_BIT, 0, 1, NAMESPACES)
    yield refused
    yield allowed
    yield (JUMP_EQUAL, 1, 0, SOCKET[machine])
    yield allowed
    yield (LOAD, 0, 0, FIRST_ARGUMENT_AT)
    for family in FAMILIES:
        yield (JUMP_EQUAL, 0, 1, family)
        yield allowed
    yield (RETURN, 0, 0, FAIL | errno.EAFNOSUPPORT)


def profile() -> str:
    """The same for a container, as JSON that Docker and podman read.

    No architecture is named, so the engine's own is the only one: calls of others end the program.
    """
    low = [family for family in range(max(FAMILIES)) if family not in FAMILIES]
    rules = [
        {"names": sorted(REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
        *(
            _rule("clone", errno.EPERM, "SCMP_CMP_MASKED_EQ", 1 << bit, 1 << bit)
            for bit in range(32)
            if NAMESPACES >> bit & 1
        ),
        *(_rule("socket", errno.EAFNOSUPPORT, "SCMP_CMP_EQ", family) for family in low),
        _rule("socket", errno.EAFNOSUPPORT, "SCMP_CMP_GT", max(FAMILIES)),
    ]
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})


def _rule(call: str, error: int, operator: str, value: int, masked: int = 0) -> dict[str, object]:
    argument = {"index": 0, "value": value, "valueTwo": masked, "op": operator}
    return {"names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": error, "args": [argument]}


@contextmanager
def in_memory(data: bytes) -> Iterator[int]:
    """A descriptor of an unnamed file in memory, from which a program that inherits it can read ``data`` once."""
    descriptor = os.memfd_create("filter")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _machine() -> int:
    if platform.machine() not in MACHINES:
        raise SandboxError(
            f"no filter of system calls is known for {platform.machine()}, only for {' and '.join(MACHINES)}"
        )
    return MACHINES.index(platform.machine())
