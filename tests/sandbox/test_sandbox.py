"""One suite for every kind of sandbox: what each does, and an attack on everything it promises."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lit_agents.environment.swe.file_tree import File, packed, unpacked
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.bubblewrap import BubblewrapSandbox
from lit_agents.sandbox.docker import DockerSandbox
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Allowance, Guarantee, Runtime, SandboxError, installed_beside
from tests.sandbox.fixtures import PYTHON, SMALL
from tests.sandbox.traces import left, traces

FILES = {
    "a.txt": File(b"hello\n"),
    "d/run.sh": File(b"#!/bin/sh\necho ran\n", executable=True),
    "link": File(b"a.txt", is_link=True),
}

ESCAPE = b"""
import os, time
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
while True:
    with open("ticks", "a") as file:
        file.write("x")
    time.sleep(0.05)
"""

FORKS = b"""
import os, time
for forks in range(200):
    try:
        if not os.fork():
            time.sleep(20)
    except OSError:
        break
print(forks)
"""


def promised(sandbox: Sandbox, guarantee: Guarantee) -> None:
    if guarantee not in sandbox.guarantees:
        pytest.skip(f"{type(sandbox).__name__} does not promise it")


def said(sandbox: Sandbox, command: str, timeout: float = 20) -> str:
    return sandbox.run(command, timeout).output.decode()


def test_a_command_has_its_output_in_order_its_exit_code_and_its_environment(sandbox: Sandbox):
    done = sandbox.run("echo out; echo err >&2; echo out again; exit 3", 20)
    assert (done.output, done.code) == (b"out\nerr\nout again\n", 3)
    assert not (done.lost or done.timed_out or done.out_of_memory)
    assert (
        said(sandbox, 'pwd; echo "$HOME"; echo "$GREETING"') == f"{sandbox.work}\n{sandbox.work}\nfrom {sandbox.work}\n"
    )
    assert sandbox.run("kill -9 $$", 20).code == 137
    assert sandbox.run("no-such-command", 20).code == 127
    assert said(sandbox, "python3 -c 'import sys; print(sys.version_info[:2])'") == f"{tuple(sys.version_info[:2])}\n"


def test_no_output_is_lost_and_input_arrives(sandbox: Sandbox):
    for number in range(40):  # short ones are those the docker package loses
        assert said(sandbox, f"echo {number}") == f"{number}\n"
    data = os.urandom(3_000_000)
    done = sandbox.run("cat", 20, cap=1 << 23, stdin=data)
    assert done.output == data
    assert sandbox.run("head -c 5", 20, stdin=data).output == data[:5]  # it does not have to read it all


def test_of_much_output_both_ends_are_kept_and_the_loss_is_counted(sandbox: Sandbox):
    done = sandbox.run("echo first; head -c 10000000 /dev/zero; echo; echo last", 30, cap=1000)
    assert done.output.startswith(b"first\n") and done.output.endswith(b"\nlast\n") and len(done.output) == 1000
    assert done.lost + 1000 == 10_000_000 + len("first\n" + "\nlast\n")
    endless = sandbox.run("yes", 1, cap=1000)
    assert endless.timed_out and endless.code == 137 and len(endless.output) == 1000 and endless.lost > 0


def test_a_command_that_takes_too_long_is_killed_and_the_next_one_runs(sandbox: Sandbox):
    start = time.monotonic()
    done = sandbox.run("echo before; sleep 60 & sleep 60", 0.5)
    assert done.timed_out and done.code == 137 and done.output == b"before\n"
    assert time.monotonic() - start < 10
    assert said(sandbox, "echo after") == "after\n"


def test_a_child_in_the_background_does_not_hold_its_command_and_ends_with_it(sandbox: Sandbox):
    start = time.monotonic()
    assert said(sandbox, "(while true; do echo x >> ticks; sleep 0.05; done) & echo done") == "done\n"
    assert time.monotonic() - start < 5
    before = said(sandbox, "wc -l < ticks 2>/dev/null || echo none")
    time.sleep(0.3)
    assert said(sandbox, "wc -l < ticks 2>/dev/null || echo none") == before


def test_what_outlives_its_shell_ends_with_the_command_too(sandbox: Sandbox):
    """It leaves the session, and ends the program that waits for it."""
    promised(sandbox, Guarantee.PROCESSES_HIDDEN)  # or that program would be this one
    said(
        sandbox,
        "rm -f ticks; setsid sh -c 'while true; do echo x >> ticks; sleep 0.05; done' >/dev/null 2>&1 & kill -TERM $PPID",
    )
    counted = said(sandbox, "touch ticks; wc -l < ticks; sleep 0.5; wc -l < ticks")  # whose end would end it too
    first, last = counted.split()
    assert first == last


def test_nothing_is_kept_in_the_kernel_for_the_next_episode(sandbox: Sandbox):
    promised(sandbox, Guarantee.WRITES_CONFINED)
    said(sandbox, "touch /dev/mqueue/note; for kind in '-M 100' -Q '-S 1'; do ipcmk $kind; done")
    sandbox.reset(packed(FILES))
    assert said(sandbox, "ls /dev/mqueue 2>/dev/null; ipcs | grep 0x || true") == ""
    assert (
        said(sandbox, "python3 -c 'import multiprocessing as m; m.Lock(); print(m.Pool(1).map(abs, [-1]))'") == "[1]\n"
    )


def test_files_go_in_and_come_out(sandbox: Sandbox):
    sandbox.reset(packed(FILES))
    assert said(sandbox, "cat link; ./d/run.sh; ls") == "hello\nran\na.txt\nd\nlink\n"
    assert unpacked(sandbox.get()) == FILES
    sandbox.put(packed({"a.txt": File(b"other"), "new/b": File(b"\x00\xff")}))
    assert unpacked(sandbox.get()) == FILES | {"a.txt": File(b"other"), "new/b": File(b"\x00\xff")}
    assert set(unpacked(sandbox.get(["./new", "./absent"]))) == {"new/b"}


def test_a_reset_leaves_nothing_of_what_was_done(sandbox: Sandbox):
    sandbox.reset(packed(FILES))
    sandbox.run(
        "rm a.txt; mkdir -p x/y; touch x/y/z .hidden '-rf' '*'; chmod 000 x/y x; touch /tmp/left; ln -s / root", 20
    )
    sandbox.reset(packed(FILES))
    assert unpacked(sandbox.get()) == FILES
    assert said(sandbox, "ls -A") == "a.txt\nd\nlink\n"
    if not isinstance(sandbox, SubprocessSandbox):
        assert said(sandbox, "ls -A /tmp") == ""


def test_an_archive_that_is_none_is_refused(sandbox: Sandbox):
    with pytest.raises(SandboxError, match="could not be set up"):
        sandbox.reset(b"no archive")


def test_links_of_an_agent_lead_nowhere_on_the_host(sandbox: Sandbox, tmp_path: Path):
    promised(sandbox, Guarantee.WRITES_CONFINED)
    (tmp_path / "target").write_text("mine")
    sandbox.reset(packed(FILES))
    sandbox.run(f"rm -r d; ln -s {tmp_path} d; ln -s {tmp_path}/target t; ln -s ../../../../../../etc e", 20)
    assert "mine" not in said(sandbox, "cat t; cat d/target; ls d/")
    assert unpacked(sandbox.get())["t"] == File(
        f"{tmp_path}/target".encode(), is_link=True
    )  # as a link, not what it names
    with pytest.raises(SandboxError):
        sandbox.put(packed({"d/target": File(b"theirs")}))
    sandbox.reset(packed(FILES))
    assert (
        sorted(path.name for path in tmp_path.iterdir()) == ["target"] and (tmp_path / "target").read_text() == "mine"
    )


def test_files_of_the_host_cannot_be_read(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    promised(sandbox, Guarantee.FILES_HIDDEN)
    (tmp_path / "secret").write_text("the-secret")
    monkeypatch.setenv("MY_TOKEN", "the-secret")
    ways = f"cat {tmp_path}/secret /proc/*/root{tmp_path}/secret /proc/*/cwd/secret /proc/*/environ; env; grep -r the-secret /tmp"
    assert "the-secret" not in said(sandbox, ways, 60)
    known = {"cache", "log", "spool", "backups", ".ssh", ".bashrc", "eth0"}
    assert not known & set(said(sandbox, "ls -A /home /var /root /sys/class/net 2>/dev/null").split())
    assert "root:$" not in said(sandbox, "cat /etc/shadow")


def test_nothing_outside_the_work_folder_can_be_written(sandbox: Sandbox):
    promised(sandbox, Guarantee.WRITES_CONFINED)
    places = f"/ /usr /usr/bin /etc /opt /var /root /home /dev /proc/sys/kernel/hostname {sys.base_prefix}"
    command = f"for p in {places}; do (echo x > $p/lit_agents_attack || echo x > $p) 2>/dev/null && echo $p; done"
    assert [p for p in said(sandbox, command).split() if p != "/dev"] == []  # /dev is a file system of its own
    assert not any(os.path.exists(f"{p}/lit_agents_attack") for p in places.split())


def test_nothing_can_be_reached(sandbox: Sandbox):
    promised(sandbox, Guarantee.NO_NETWORK)
    script = """
import socket
def tried(family, kind, address):
    with socket.socket(family, kind) as s:
        s.settimeout(2)
        try:
            s.connect(address)
            s.send(b"x")
            print("REACHED", address)
        except OSError as error:
            print(type(error).__name__)
tried(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", %d))
tried(socket.AF_INET, socket.SOCK_STREAM, ("%s", %d))
tried(socket.AF_INET, socket.SOCK_DGRAM, ("8.8.8.8", 53))
tried(socket.AF_UNIX, socket.SOCK_STREAM, "\\0lit_agents_%d")
"""
    with socket.create_server(("0.0.0.0", 0)) as listening, socket.socket(socket.AF_UNIX) as hidden:
        port, number = listening.getsockname()[1], os.getpid()
        hidden.bind(f"\0lit_agents_{number}")
        hidden.listen()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            try:
                way.connect(("10.255.255.255", 1))
                own = way.getsockname()[0]
            except OSError:
                own = "127.0.0.1"
        found = sandbox.run("python3 -", 30, stdin=(script % (port, own, port, number)).encode()).output.decode()
    assert "REACHED" not in found and len(found.split()) == 4, found


def test_packages_of_the_host_cannot_be_read(sandbox: Sandbox):
    promised(sandbox, Guarantee.FILES_HIDDEN)
    there = installed_beside(PYTHON)
    assert any(list(Path(path).iterdir()) for path in there)  # on the host there are some
    assert said(sandbox, f"for each in {' '.join(there)}; do ls -A $each; done") == ""


def test_a_command_cannot_close_the_work_folder_to_the_next_one(sandbox: Sandbox):
    promised(sandbox, Guarantee.UNPRIVILEGED)
    sandbox.reset(packed({"a": File(b"kept")}))
    sandbox.run("chmod 000 .; chmod 500 .", 20)
    assert said(sandbox, "cat a") == "kept" and set(unpacked(sandbox.get())) == {"a"}
    sandbox.reset(packed({"b": File(b"new")}))
    assert said(sandbox, "ls -A") == "b\n"


def test_nothing_stays_beside_the_work_folder(sandbox: Sandbox):
    promised(sandbox, Guarantee.WRITES_CONFINED)
    said(sandbox, "touch /dev/shm/left /tmp/left")
    sandbox.reset(packed({}))
    assert said(sandbox, "ls -A /dev/shm /tmp 2>&1 | grep left") == ""


def test_who_kills_the_shell_that_waits_for_him_ends_too(sandbox: Sandbox):
    promised(sandbox, Guarantee.ALL_KILLED)
    sandbox.run("exec >/dev/null 2>&1; kill -9 -1; while :; do echo >> alive; sleep 0.01; done", 5)
    first, second = said(sandbox, "touch alive; wc -c < alive; sleep 0.3; wc -c < alive").split()
    assert first == second  # nobody writes any more


def test_processes_of_the_host_are_neither_seen_nor_signalled(sandbox: Sandbox):
    promised(sandbox, Guarantee.PROCESSES_HIDDEN)
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            found = said(
                sandbox, f"kill -9 {other.pid} 2>&1; cat /proc/*/cmdline | tr '\\0' ' '; ls /proc | grep -c '^[0-9]'"
            )
            assert "sleep 60" not in found and "pytest" not in found and int(found.split()[-1]) < 10
            assert other.poll() is None
        finally:
            other.kill()


def test_nobody_becomes_root(sandbox: Sandbox):
    promised(sandbox, Guarantee.UNPRIVILEGED)
    assert int(said(sandbox, "id -u")) not in (0, os.getuid() if os.getuid() == 0 else -1)
    tries = (
        "python3 -c 'import os; os.setuid(0)'; unshare -r id -u; mount -t tmpfs x /tmp; chroot / id -u; mknod n b 254 0"
    )
    found = said(sandbox, f"({tries}; su -c 'id -u'; chown 0 .) 2>/dev/null; id -u; grep CapEff /proc/self/status")
    assert "0" not in found.split()[:-1] and found.split()[-1] == "0" * 16, found


def test_memory_of_all_processes_together_is_limited(sandbox: Sandbox):
    promised(sandbox, Guarantee.MEMORY_LIMITED)
    hog = "python3 -c 'import time; x = b\"x\" * (90 << 20); time.sleep(3); print(4321)'"
    done = sandbox.run(f"{hog} & {hog} & {hog} & {hog} & wait", 20)
    assert done.output.count(b"4321\n") < 3  # 4 of 90 MB in 256
    alone = sandbox.run("python3 -c 'x = b\"x\" * (600 << 20)'", 20)
    assert alone.code == 137 and alone.out_of_memory
    assert not sandbox.run("true", 20).out_of_memory


def test_a_fork_bomb_is_contained(sandbox: Sandbox):
    promised(sandbox, Guarantee.PROCESSES_LIMITED)
    forks = sandbox.run("python3 -", 20, stdin=FORKS).output.split()
    assert 10 < int(forks[-1]) < SMALL.processes
    done = sandbox.run(":(){ :|:& };:; sleep 30", 1)
    assert done.timed_out
    start = time.monotonic()
    assert said(sandbox, "echo still here") == "still here\n"
    assert time.monotonic() - start < 5


def test_processors_are_limited(sandbox: Sandbox):
    promised(sandbox, Guarantee.CPU_LIMITED)
    burn = "python3 -c 'import time; t = time.time() + 2\nwhile time.time() < t: pass\nprint(time.process_time())'"
    used = sum(map(float, said(sandbox, f"({burn} & {burn} & {burn} & wait)", 20).split()))
    assert used < 2 * SMALL.cpus * 1.5  # two seconds of a half; starting Python is in it


def test_what_tries_to_escape_is_killed_too(sandbox: Sandbox):
    promised(sandbox, Guarantee.ALL_KILLED)
    sandbox.reset(packed({"escape.py": File(ESCAPE)}))
    done = sandbox.run("trap '' TERM INT HUP; nohup setsid python3 escape.py >/dev/null 2>&1 & sleep 60", 1.5)
    assert done.timed_out
    size = said(sandbox, "wc -c < ticks")
    time.sleep(0.4)
    assert int(size) > 0 and said(sandbox, "wc -c < ticks") == size


def test_a_sandbox_that_is_not_open_says_so(sandbox: Sandbox):
    other = pickle.loads(pickle.dumps(sandbox.copy()))
    with pytest.raises(SandboxError, match="not open"):
        other.run("true", 5)
    other.close()
    other.close()


OWNER = """
import pickle, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests may have it ignored
from lit_agents.sandbox.types import Runtime
sandbox = pickle.loads(bytes.fromhex(sys.argv[1]))
sandbox.open(Runtime())
print(sandbox.run("echo ready", 20).output.decode().strip(), flush=True)
sandbox.run("sleep 300.125", 300)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, None], ids=["kill", "interrupt", "close"])
def test_nothing_is_left_when_its_owner_ends(sandbox: Sandbox, end: signal.Signals | None):
    url = sandbox.url if isinstance(sandbox, DockerSandbox) else ""
    before = traces(url)
    if end is None:
        with sandbox.copy() as other:
            other.open(Runtime())
            assert said(other, "sleep 300.125 & echo ready") == "ready\n"
            assert traces(url) - before
    else:
        command = [sys.executable, "-c", OWNER, pickle.dumps(sandbox.copy()).hex()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as owner:
            assert owner.stdout and owner.stdout.readline() == "ready\n"
            time.sleep(0.2)
            assert traces(url) - before
            owner.send_signal(end)
            owner.wait(20)
    assert left(before, url) == set()


def test_without_control_groups_a_bubble_promises_less(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lit_agents.sandbox.bubblewrap._can_limit", lambda: False)
    with BubblewrapSandbox(Allowance(memory=256 << 20, work_size=64 << 20)) as sandbox:
        if trouble := sandbox.trouble():
            pytest.skip(trouble)
        assert Guarantee.MEMORY_LIMITED not in sandbox.guarantees and Guarantee.NO_NETWORK in sandbox.guarantees
        sandbox.open(PYTHON)
        assert (
            b"MemoryError" in sandbox.run("python3 -c 'x = b\"x\" * (600 << 20)'", 20).output
        )  # but each process is limited
