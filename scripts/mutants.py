#!/usr/bin/env python
"""Do the tests notice? Puts each fault of tests/faults.py into a copy of the tree, alone, and runs the tests named with it.

    python scripts/mutants.py [WORDS OF A FAULT'S FILE OR NAME]

Prints a line per fault and the kill rate; ends with 1 if a fault survived. The tests are run once without any fault first. What
is expensive to import is imported once, by a process that is forked for each fault. MUTANTS_LOG names a file for pytest's words.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.faults import FAULTS, Fault  # noqa: E402

SECONDS = 240
FAILED, NO_TIME, BROKEN = 1, -signal.SIGALRM, 99


def copy_of_the_tree(folder: Path) -> Path:
    """What the tests need."""
    for name in ("lit_agents", "tests", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(tree: Path, tests: tuple[str, ...]) -> int:
    """pytest's exit code in a fork of this process, which has not imported the package."""
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
        os._exit(_pytest([*tests, "-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(tree)]))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _pytest(arguments: list[str]) -> int:
    import pytest

    try:  # what was imported early for speed is not rewritten by pytest, which says so
        return int(pytest.main([*arguments, "-W", "ignore::pytest.PytestAssertRewriteWarning"]))
    except BaseException as error:
        print(error, file=sys.stderr)
        return BROKEN


@contextlib.contextmanager
def put_in(fault: Fault, tree: Path):
    """The fault is in the tree for a while."""
    path = tree / "lit_agents" / fault.file
    sound = path.read_text()
    if sound.count(fault.line) != 1:
        raise SystemExit(f"{fault.name}: {fault.file} holds its line {sound.count(fault.line)} times")
    path.write_text(sound.replace(fault.line, fault.fault))
    try:
        yield
    finally:
        path.write_text(sound)


def main(words: list[str]) -> int:
    """The command."""
    chosen = [fault for fault in FAULTS if " ".join(words) in f"{fault.file}: {fault.name}"]
    import hypothesis  # noqa: F401
    import lightning  # noqa: F401
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    killed = 0
    with tempfile.TemporaryDirectory() as scratch:
        tree = copy_of_the_tree(Path(scratch))
        for tests in dict.fromkeys(fault.tests for fault in chosen):
            if code := run(tree, tests):
                raise SystemExit(f"{' '.join(tests)} ends with {code} without any fault")
        for fault in chosen:
            begun = time.monotonic()
            with put_in(fault, tree):
                code = run(tree, fault.tests)
            verdict = {FAILED: "killed", NO_TIME: "TIME-OUT", 0: "SURVIVED"}.get(code, f"BROKEN ({code})")
            killed += verdict.startswith("killed")
            print(f"{verdict:>10}  {time.monotonic() - begun:4.0f} s  {fault.file}: {fault.name}", flush=True)
    print(f"{killed} of {len(chosen)} faults killed ({killed / max(1, len(chosen)):.0%})")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
