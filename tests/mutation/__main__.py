"""Do the tests notice? Puts each fault of `tests.mutation.faults` into a copy of the tree, alone, and runs its tests.

    python -m tests.mutation [WORDS OF A FAULT'S FILE OR NAME] [--minutes M]

Prints a line per fault and the kill rate; ends with 1 if a fault survived. The tests of a fault are run once without it too. What
is expensive to import is imported once, by a process that is forked for each fault, as often at once as there are cores, each
time in a copy of the tree that is its own. With a time limit the order is one of chance, another one in every call, and those
that there is no time for are counted as such. MUTANTS_LOG names a file for pytest's words.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.mutation.faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]

SECONDS = 240
FAILED, NO_TIME, BROKEN = 1, -signal.SIGALRM, 99


def copy_of_the_tree(folder: Path) -> Path:
    """What the tests need."""
    for name in ("lit_agents", "tests", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def begun(tree: Path, tests: tuple[str, ...]) -> int:
    """pytest in a fork of this process, which has not imported the package; the number of that process."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(SECONDS)
        os.chdir(tree)
        sys.path[0] = str(tree)
        for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "lit_agents")]:
            del sys.modules[name]
        sys.dont_write_bytecode = True
        with open(os.environ.get("MUTANTS_LOG", os.devnull), "a") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        scratch = f"--basetemp={tree.with_name(f'{tree.name}-scratch')}"
        os._exit(_pytest([*tests, "-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(tree), scratch]))
    return pid


def _pytest(arguments: list[str]) -> int:
    import pytest

    try:  # what was imported early for speed is not rewritten by pytest, which says so
        return int(pytest.main([*arguments, "-W", "ignore::pytest.PytestAssertRewriteWarning"]))
    except BaseException as error:
        print(error, file=sys.stderr)
        return BROKEN


def put_in(fault: Fault, tree: Path) -> None:
    """The fault, into a tree that may have another one."""
    path = tree / "lit_agents" / fault.file
    sound = path.read_text()
    if sound.count(fault.line) != 1:
        raise SystemExit(f"{fault.name}: {fault.file} holds its line {sound.count(fault.line)} times")
    path.write_text(sound.replace(fault.line, fault.fault))


def _counts(tests: tuple[str, ...]) -> bool:
    """Whether they count what is on the machine: two of them at once would count each other's sandboxes."""
    return any(test.startswith(("tests/environment/swe/", "tests/sandbox/")) for test in tests)


Job = tuple[tuple[str, ...], Fault | None]
"""Tests, and what is put in before they are run."""


def jobs_for(faults: list[Fault]) -> list[Job]:
    """Tests without a fault come before the first fault that they have to notice."""
    with_sound = [job for fault in faults for job in ((fault.tests, None), (fault.tests, fault))]
    return list(dict.fromkeys(with_sound))


def outcomes(jobs: list[Job], trees: list[Path], until: float) -> Iterator[tuple[int, int, float]]:
    """As they end, for each job its place in the list, pytest's exit code, and the seconds it took; none begins after a time."""
    under_way: dict[int, tuple[int, Path, float]] = {}
    waiting = list(range(len(jobs)))
    while True:
        if time.monotonic() > until:
            waiting.clear()
        if not (waiting or under_way):
            return
        while trees:
            alone = any(_counts(jobs[place][0]) for place, _, _ in under_way.values())
            place = next((place for place in waiting if not (alone and _counts(jobs[place][0]))), None)
            if place is None:
                break
            waiting.remove(place)
            tree = trees.pop()
            tests, fault = jobs[place]
            if fault:
                put_in(fault, tree)
            under_way[begun(tree, tests)] = (place, tree, time.monotonic())
        pid, status = os.wait()
        place, tree, since = under_way.pop(pid)
        if fault := jobs[place][1]:
            shutil.copy(ROOT / "lit_agents" / fault.file, tree / "lit_agents" / fault.file)
        trees.append(tree)
        yield place, os.waitstatus_to_exitcode(status), time.monotonic() - since


def main(args: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", allow_abbrev=False)
    parser.add_argument("words", nargs="*", help="of a fault's file or name; all faults without")
    parser.add_argument("--minutes", type=float, default=None, help="after which no fault is begun; all are without")
    given = parser.parse_args(args)
    began = time.monotonic()
    until = float("inf") if given.minutes is None else began + 60 * given.minutes
    chosen = [fault for fault in FAULTS if " ".join(given.words) in f"{fault.file}: {fault.name}"]
    if given.minutes is not None:
        # Those of the same tests stay together: these run once without a fault for all of them.
        order = {tests: random.random() for tests in {fault.tests for fault in chosen}}
        chosen.sort(key=lambda fault: order[fault.tests])
    import hypothesis  # noqa: F401
    import lightning  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    tried = killed = 0
    with tempfile.TemporaryDirectory() as scratch:
        trees = [copy_of_the_tree(Path(scratch) / str(number)) for number in range(os.cpu_count() or 1)]
        jobs = jobs_for(chosen)
        for place, code, seconds in outcomes(jobs, trees, until):
            tests, fault = jobs[place]
            if fault is None:
                if code:
                    raise SystemExit(f"{' '.join(tests)} ends with {code} without any fault")
                continue
            verdict = {FAILED: "killed", NO_TIME: "TIME-OUT", 0: "SURVIVED"}.get(code, f"BROKEN ({code})")
            tried += 1
            killed += verdict == "killed"
            print(f"{verdict:>10}  {seconds:4.0f} s  {fault.file}: {fault.name}", flush=True)
    rest = f"; no time for {len(chosen) - tried}" if tried < len(chosen) else ""
    minutes = (time.monotonic() - began) / 60
    print(f"{killed} of {tried} faults killed ({100 * killed // max(1, tried)}%){rest}; {minutes:.0f} min")
    return 0 if killed == tried else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
