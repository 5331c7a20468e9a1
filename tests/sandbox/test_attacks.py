"""More attacks on what sandboxes promise: system calls, keys, disk space, and losses that are to look like a broken sandbox."""

from __future__ import annotations

import ctypes
import json
import platform
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_agents.environment.swe.file_tree import File, packed, unpacked
from lit_agents.errors import BadInput
from lit_agents.sandbox import base, syscalls
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.bubblewrap import BubblewrapSandbox
from lit_agents.sandbox.docker import DockerSandbox
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Allowance, Ended, Guarantee, Runtime, SandboxError, Unreadable
from tests.sandbox.fixtures import SMALL
from tests.sandbox.test_sandbox import promised, said

NAMESPACE = 0x10000000 | 17  # CLONE_NEWUSER, and SIGCHLD at its end
ATTACKS = [
    ("keyctl", 0, -3, 1),
    ("add_key", "user", "lit_agents", "x", 1, -3),
    ("request_key", "user", "lit_agents", 0, -3),
    ("io_uring_setup", 1, "\0" * 120),
    ("io_uring_enter", -1, 0, 0, 0),
    ("io_uring_register", -1, 0, 0, 0),
    ("userfaultfd", 1),
    ("bpf", 0, "\0" * 64, 64),
    ("perf_event_open", "\1\0\0\0\x80" + "\0" * 123, 0, -1, -1, 0),
    ("process_vm_readv", 1, 0, 0, 0, 0, 0),
    ("personality", 0x0040000),
    ("unshare", 0x10000000),
    ("clone", NAMESPACE, 0, 0, 0, 0),
    ("clone3", "\0\0\0\x10" + "\0" * 84, 88),
    ("socket", 40, 1, 0),
    ("socket", 40 | 1 << 40, 1, 0),
    ("socket", 1 << 40 | 38, 5, 0),
    ("socket", 17, 3, 0),
]
CALLER = """
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for name, number, *arguments in json.loads(sys.argv[1]):
    ctypes.set_errno(0)
    given = [ctypes.c_char_p(a.encode("latin-1")) if isinstance(a, str) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *given)
    if result == 0 and name.startswith("clone"):
        os._exit(0)
    print(name, result, errno.errorcode.get(ctypes.get_errno()), flush=True)
"""
OTHERS = {"clone": syscalls.CLONE, "clone3": syscalls.CLONE3, "socket": syscalls.SOCKET}
GETPID_OF_32_BITS = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
print("had", ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
"""


def numbered(attacks: list[tuple]) -> str:
    here = syscalls.MACHINES.index(platform.machine())
    return json.dumps([[name, (OTHERS | syscalls.REFUSED)[name][here], *rest] for name, *rest in attacks])


def test_calls_that_reach_the_host_are_refused(sandbox: Sandbox):
    promised(sandbox, Guarantee.CALLS_REFUSED)
    done = sandbox.run(f"python3 - '{numbered(ATTACKS)}'", 30, stdin=CALLER.encode())
    lines = [line.split() for line in done.output.decode().splitlines()]
    assert [name for name, _, _ in lines] == [name for name, *_ in ATTACKS], done.output
    for name, result, error in lines:
        expected = {"socket": "EAFNOSUPPORT", "clone3": "ENOSYS"}.get(name, "EPERM")
        assert (result, error) == ("-1", expected), (name, result, error)


def test_calls_of_other_architectures_are_refused(sandbox: Sandbox):
    promised(sandbox, Guarantee.CALLS_REFUSED)
    if platform.machine() != "x86_64":
        pytest.skip("x86_64 has calls of 32 bits")
    x32 = json.dumps([["socket of x32", syscalls.X32 | 41, 40, 1, 0]])
    assert "ENOSYS" in said(sandbox, f"python3 - '{x32}' <<'E'\n{CALLER}\nE") or isinstance(sandbox, DockerSandbox)
    assert "socket of x32 3" not in said(sandbox, f"python3 - '{x32}' <<'E'\n{CALLER}\nE")
    found = sandbox.run("python3 -", 20, stdin=GETPID_OF_32_BITS.encode())
    assert found.code >= 128 or found.output.split() == [b"had", b"-38"], found


def test_what_programs_need_is_allowed(sandbox: Sandbox):
    script = """
import asyncio, concurrent.futures as c, multiprocessing as m, socket, subprocess, threading
with c.ProcessPoolExecutor(1, m.get_context("fork")) as pool:
    assert pool.submit(abs, -1).result() == 1
asyncio.run(asyncio.sleep(0))
a, b = socket.socketpair()
a.send(b"x"); assert b.recv(1) == b"x"
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    pass
socket.if_nameindex(); socket.socket(socket.AF_INET6).close(); socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
thread = threading.Thread(target=subprocess.run, args=(["true"],)); thread.start(); thread.join()
print("fine")
"""
    done = sandbox.run("cat > needs.py; python3 needs.py", 30, stdin=script.encode())
    assert done.output == b"fine\n", done


@pytest.fixture
def key_of_the_host() -> Iterator[str]:
    """The name of a key in this process's session keyring."""
    call, name = ctypes.CDLL(None).syscall, "lit_agents_secret"
    key = call(ctypes.c_long(syscalls.number("add_key")), b"user", name.encode(), b"secret", ctypes.c_long(6), -3)
    if key < 0 or name not in Path("/proc/keys").read_text():
        pytest.skip("there are no keyrings here")
    yield name
    call(ctypes.c_long(syscalls.number("keyctl")), 9, ctypes.c_int(key), -3)  # unlink


def test_keys_of_the_host_are_not_seen(sandbox: Sandbox, key_of_the_host: str):
    promised(sandbox, Guarantee.CALLS_REFUSED)
    assert said(sandbox, "cat /proc/keys 2>/dev/null") == ""  # of no user at all
    assert key_of_the_host in Path("/proc/keys").read_text()  # this process keeps its keyring


def test_commands_of_a_bubble_have_another_session_keyring():
    def session() -> int:
        return ctypes.CDLL(None).syscall(ctypes.c_long(syscalls.number("keyctl")), 0, -3, 0)  # its number

    with BubblewrapSandbox() as sandbox:
        if trouble := sandbox.trouble():
            pytest.skip(trouble)
        sandbox.open(Runtime())
        assert sandbox._launcher and sandbox._launcher.submit(session).result() != session() > 0


def test_what_a_command_can_write_is_limited_over_all_files(sandbox: Sandbox):
    promised(sandbox, Guarantee.FILES_LIMITED)
    sandbox.reset(packed({}))
    for folder, most in ((".", SMALL.work_size), ("/tmp", base.TMP_SIZE), ("/dev/shm", base.TMP_SIZE)):
        fill = f"for n in $(seq 12); do head -c 16M /dev/zero > {folder}/fill$n; done 2>/dev/null"
        written = int(said(sandbox, f"{fill}; du -sb {folder} | cut -f1; rm {folder}/fill*", 60))
        assert most // 2 < written <= most + 4096
    assert said(sandbox, "for f in /fill /dev/fill; do touch $f 2>/dev/null && echo $f; done; true") == ""
    size = said(sandbox, "bash -c 'truncate -s 1G sparse; true' 2>/dev/null; stat -c %s sparse")
    assert size == "0\n"  # one file is limited, too
    sandbox.reset(packed({}))


def test_files_without_content_are_limited_too(sandbox: Sandbox):
    promised(sandbox, Guarantee.FILES_LIMITED)
    script = "import os\ntry:\n  for n in range(10**6): os.close(os.open(f'{n}', os.O_CREAT))\nexcept OSError: print(n)"
    assert int(said(sandbox, f'python3 -c "{script}"', 60)) <= SMALL.work_size // 4096
    sandbox.reset(packed({"a": File(b"new")}))
    assert set(unpacked(sandbox.get())) == {"a"}


NESTED = "python3 -c \"import os\nfor _ in range(2000): os.mkdir('d'); os.chdir('d')\""


def test_folders_too_deep_to_be_copied_out_are_who_made_thems_fault(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    sandbox.reset(packed({"a": File(b"")}))
    sandbox.run(NESTED, 60)
    with monkeypatch.context() as patched:
        patched.setattr(base, "COPY_TIMEOUT", 2.0)  # tar has no more descriptors, and goes on for ever
        with pytest.raises(Unreadable):
            sandbox.get()
    sandbox.reset(packed({"a": File(b"new")}))  # and none of it is left
    assert unpacked(sandbox.get()) == {"a": File(b"new")}


@pytest.mark.parametrize("failure", ["takes too long", "ends with an error"])
def test_a_copy_out_that_fails_is_the_contents_fault_where_another_sandbox_works(
    sandbox: Sandbox, failure: str, monkeypatch: pytest.MonkeyPatch
):
    sandbox.reset(packed({"a": File(b"")}))
    tries: list[bool] = []
    execute = type(sandbox).execute

    def counted(self: Sandbox, argv, variables, stdin, timeout, sink) -> Ended:
        if self is sandbox and argv[:1] == ["sh"]:
            tries.append(True)
            if failure == "takes too long":
                argv = ["sh", "-c", f"printf begun; sleep 5; {argv[2]}"]
                return execute(self, argv, variables, stdin, 0.5, sink)
            argv = ["sh", "-c", argv[2].replace("tar -cf", "false -cf").replace("-le 2", "-le 0")]
        return execute(self, argv, variables, stdin, timeout, sink)

    monkeypatch.setattr(type(sandbox), "execute", counted)
    with pytest.raises(Unreadable, match="could not be copied out"):
        sandbox.get()
    assert len(tries) == 2  # once may be an accident


def test_a_copy_out_that_fails_where_no_other_sandbox_works_is_nobodys_fault(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    sandbox.reset(packed({"a": File(b"")}))
    execute = type(sandbox).execute

    def broken(self: Sandbox, argv, variables, stdin, timeout, sink) -> Ended:
        if argv[:1] == ["sh"] and "tar -cf" in argv[-1]:
            argv = ["sh", "-c", "printf begun; exit 9"]
        return execute(self, argv, variables, stdin, timeout, sink)

    monkeypatch.setattr(type(sandbox), "execute", broken)
    with pytest.raises(SandboxError) as error:
        sandbox.get()
    assert not isinstance(error.value, Unreadable)


def test_a_reset_that_fails_makes_a_new_sandbox(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    sandbox.reset(packed({"a": File(b"")}))
    with monkeypatch.context() as patched:
        patched.setattr(
            sandbox, "empty", lambda: (_ for _ in ()).throw(SandboxError("too much to remove")), raising=True
        )
        if isinstance(sandbox, BubblewrapSandbox):
            pytest.skip("it always takes a new folder")
        sandbox.reset(packed({"b": File(b"")}))
    assert set(unpacked(sandbox.get())) == {"b"}


def test_an_agent_that_removes_or_replaces_its_folder_has_lost_it_and_nothing_else():
    with SubprocessSandbox() as sandbox:
        sandbox.open(Runtime())
        for attack in ('rm -rf "$PWD"', 'rm -rf "$PWD"; touch "$PWD"', 'rm -rf "$PWD"; ln -s / "$PWD"', "chmod 0 ."):
            sandbox.run(attack, 20)
            assert sandbox.run("echo on", 20).output == b"on\n"
            sandbox.reset(packed({"a": File(b"new")}))
            assert unpacked(sandbox.get()) == {"a": File(b"new")}


def test_a_work_folder_that_would_take_all_memory_is_refused():
    with pytest.raises(BadInput, match="more than half"):
        Allowance(memory=256 << 20, work_size=200 << 20)


def interpreted(program: bytes, number: int, architecture: int, first: int) -> int:
    """What a filter says of a call: the kernel's part, as far as our filters use it."""
    data = struct.pack("<IIQQ", number & 0xFFFFFFFF, architecture, 0, first & (1 << 64) - 1)
    code, at, value = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        kind, yes, no, constant = code[at]
        at += 1
        if kind == syscalls.RETURN:
            return constant
        if kind == syscalls.LOAD:
            value = struct.unpack_from("<I", data, constant)[0]
            continue
        holds = {
            syscalls.JUMP_EQUAL: value == constant,
            syscalls.JUMP_AT_LEAST: value >= constant,
            syscalls.JUMP_ANY_BIT: bool(value & constant),
        }[kind]
        at += yes if holds else no


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_the_filter_of_every_machine_refuses_the_same(machine: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    here = syscalls.MACHINES.index(machine)
    own, other = syscalls.ARCHITECTURES[here], syscalls.ARCHITECTURES[1 - here]

    def asked(number: int, first: int = 0, architecture: int = own) -> int:
        result = interpreted(syscalls.program(), number, architecture, first)
        return 0 if result == syscalls.ALLOW else result & 0xFFFF

    assert asked(0) == 0 and asked(0, architecture=other) == 38 and asked(syscalls.X32 | 1) == 38
    assert asked(syscalls.NEWER) == asked(-1) == 38
    refused = {numbers[here] for numbers in syscalls.REFUSED.values()} - {None}
    expected = dict.fromkeys(refused, 1) | {syscalls.CLONE3[here]: 38, syscalls.SOCKET[here]: 97}
    assert {number: asked(number) for number in range(syscalls.NEWER) if asked(number)} == expected
    families = [family for family in range(64) if not asked(syscalls.SOCKET[here], family)]
    assert families == list(syscalls.FAMILIES)
    assert asked(syscalls.CLONE[here], 17 | 0x100 | 0x8000) == 0 and asked(syscalls.CLONE[here], NAMESPACE) == 1


def test_a_machine_whose_calls_are_not_known_gets_no_bubble(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert "riscv64" in BubblewrapSandbox().trouble()
