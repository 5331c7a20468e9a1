from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lit_agents.study import memory_room as room
from lit_agents.study.memory_room import Room
from lit_agents.system import processes

GB = 1 << 30


def test_a_process_holds_what_its_children_hold_too():
    code = "import subprocess, sys, time; a = bytearray(60 << 20); print(len(a), flush=True); time.sleep(60)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen([sys.executable, "-c", nested], stdout=subprocess.PIPE) as outer:
        assert outer.stdout and outer.stdout.readline()
        assert 60 << 20 < processes.resident_bytes(outer.pid) < 200 << 20
        subprocess.run(["pkill", "-P", str(outer.pid)], check=True)


def test_runs_that_have_just_begun_count_at_their_full_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "available_memory", lambda: 30 * GB)
    monkeypatch.setattr(room, "resident_bytes", lambda _: 10 * GB)
    monkeypatch.setattr(room, "AGAIN", 0.01)
    shared, at_once, most = Room(4), [0], [0]
    measured, end = threading.Event(), threading.Event()

    def run(go: threading.Event) -> None:
        with shared.place():
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
            shared.note(os.getpid())
            go.wait(5)
            at_once[0] -= 1

    first = threading.Thread(target=run, args=(measured,))
    first.start()
    time.sleep(0.1)
    others = [threading.Thread(target=run, args=(end,)) for _ in range(3)]
    for thread in others:
        thread.start()
    time.sleep(0.2)
    assert most == [1]  # nobody knows how large a run gets
    measured.set()
    first.join()
    time.sleep(0.3)
    assert most == [2] and at_once == [2]  # of 30 GB 10 for the one that grows, and 12.5 for one more, but not for two
    end.set()
    for thread in others:
        thread.join()


def test_who_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    mine = processes.identity(os.getpid())
    host, boot, numbers, pid, start = mine.split()
    assert not processes.is_gone(mine)
    assert processes.is_gone(f"{host} {boot} {numbers} {pid} 1")  # the number was given to another one
    assert processes.is_gone(f"{host} an-earlier-boot {numbers} {pid} {start}")
    assert not processes.is_gone(f"elsewhere another-boot {numbers} {pid} {start}")
    assert not processes.is_gone(f"{host} {boot} pid:[7] {pid} 1")  # a container's numbers are its own
    assert not processes.is_gone("")
