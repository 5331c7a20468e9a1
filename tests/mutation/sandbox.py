"""One-line faults in what sandboxes refuse and limit, and in whose fault a failed copy-out is."""

from __future__ import annotations

from tests.mutation.fault import Fault
from tests.mutation.repair import BUBBLEWRAP, ENGINE

ATTACKS = "tests/sandbox/test_attacks.py"
BASE, SYSCALLS = "sandbox/base.py", "sandbox/syscalls.py"
TERMS, TRUSTED = "sandbox/types.py", "sandbox/local.py"


def attacked(words: str) -> tuple[str, ...]:
    return (ATTACKS, "-k", words)


BLAMED, FILTER = attacked("SubprocessSandbox and copy_out_that_fails"), attacked("filter_of_every_machine")

SANDBOX_FAULTS = [
    Fault("call a work folder that cannot be read a broken sandbox", BASE, "raise Unreadable(reason)",
          "raise SandboxError(reason)", BLAMED),
    Fault("blame the content of a folder where no sandbox works", BASE, "self._check_another()", "pass", BLAMED),
    Fault("blame the content of a folder for one failed copy", BASE, "for _ in range(2):", "for _ in range(1):", BLAMED),
    Fault("give up a sandbox that cannot be emptied", BASE, "self.open(self.runtime)", "raise",
          attacked("SubprocessSandbox and reset_that_fails")),
    Fault("let a command remove the work folder for good", TRUSTED, "self._restore_folder()", "pass",
          attacked("removes_or_replaces")),
    Fault("give a bubble all system calls", BUBBLEWRAP, ', "--seccomp", str(read_once)]', "]",
          attacked("BubblewrapSandbox and calls")),
    Fault("leave the session keyring to a bubble", BUBBLEWRAP, "(1, initializer=_join_new_keyring)", "(1)",
          attacked("another_session_keyring")),
    Fault("show a bubble the names of the user's keys", BUBBLEWRAP, "filter(os.path.exists, KEY_LISTS)", "()",
          attacked("keys_of_the_host")),
    Fault("leave a bubble's devices writable", BUBBLEWRAP, '"--remount-ro", "/dev", ', "",
          attacked("BubblewrapSandbox and over_all_files")),
    Fault("give a container the engine's own profile", ENGINE, ', f"seccomp={seccomp}"]', "]",
          attacked("DockerSandbox and calls")),
    Fault("limit no file in a container", ENGINE, "limits + THEN_KILL", "THEN_KILL",
          attacked("DockerSandbox and over_all_files")),
    Fault("limit no work folder", TERMS, 'f"size={size},nr_inodes', 'f"nr_inodes', attacked("Bubblewrap and over_all_files")),
    Fault("count only the bytes of files", TERMS, ",nr_inodes={max(64, size // BYTES_PER_FILE)}", "",
          attacked("Bubblewrap and without_content")),
    Fault("let a full work folder take all memory", TERMS, "self.work_size > self.memory // 2", "False",
          attacked("all_memory")),
    Fault("allow calls that nobody knows yet", SYSCALLS, "(JUMP_AT_LEAST, 0, 1, NEWER)", "(JUMP_AT_LEAST, 1, 1, NEWER)", FILTER),
    Fault("let clone make namespaces", SYSCALLS, "(JUMP_ANY_BIT, 0, 1, NAMESPACES)", "(JUMP_ANY_BIT, 1, 1, NAMESPACES)", FILTER),
    Fault("allow sockets of all families", SYSCALLS, "FAIL | errno.EAFNOSUPPORT)", "ALLOW)", FILTER),
    Fault("let a container have other sockets", SYSCALLS, '"SCMP_CMP_GT", max(FAMILIES)', '"SCMP_CMP_GT", 1 << 60',
          attacked("DockerSandbox and calls")),
]  # fmt: skip
