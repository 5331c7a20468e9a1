"""Commands take turns on a machine's cores, and what they wait is nobody's time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from lit_agents.sandbox.concurrency import slot
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Allowance, Completed, Runtime

HOLD = """
import time
from lit_agents.sandbox.concurrency import slot

with slot(1):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path: Path):
    """Slots of other tests' commands are none of ours."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_as_many_as_there_are_slots_and_no_more():
    running, most, lock = [0], [0], threading.Lock()

    def work() -> None:
        with slot(2):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.05)
            with lock:
                running[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [2]


def test_who_comes_first_is_served_first():
    order, threads = list[int](), list[threading.Thread]()

    def work(number: int) -> None:
        with slot(1):
            order.append(number)
            time.sleep(0.02)

    with slot(1):  # until all of them are in line
        for number in range(6):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            time.sleep(0.3)
    for thread in threads:
        thread.join()
    assert order == list(range(6))


def test_a_process_that_is_killed_gives_its_own_back():
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    taken = threading.Event()

    def take() -> None:
        with slot(1):
            taken.set()

    waiting = threading.Thread(target=take)
    waiting.start()
    assert not taken.wait(0.3)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert taken.wait(10)
    waiting.join()
    holder.stdout.close()


def test_waiting_takes_nothing_of_a_commands_time():
    ended: list[Completed] = []

    def work() -> None:
        with SubprocessSandbox(Allowance(at_once=1)) as sandbox:
            sandbox.open(Runtime())
            ended.append(sandbox.run("date +%s.%N; sleep 1; date +%s.%N", 2.5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.timed_out for done in ended] == [False] * 4  # the last one has waited longer than it may take
    spans = sorted(tuple(map(float, done.output.split())) for done in ended)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
    assert all(1.0 <= done.seconds < 2.5 for done in ended)
