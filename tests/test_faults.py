"""The list of one-line faults: each applies, and each is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import FAULTS

ROOT = Path(__file__).parents[1]


def test_every_fault_applies_to_one_line_and_names_tests_that_are_there():
    for fault in FAULTS:
        text = (ROOT / "lit_agents" / fault.file).read_text()
        assert text.count(fault.line) == 1, f"{fault.name}: its line is not there once"
        changed = text.replace(fault.line, fault.fault)
        compile(changed, fault.file, "exec")
        assert changed != text
        named = [test.partition("::")[0] for test in fault.tests if test.startswith("tests/")]
        assert named and all((ROOT / name).is_file() for name in named)
    assert max(Counter(fault.name for fault in FAULTS).values()) == 1


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_fault_is_noticed():
    command = [sys.executable, str(ROOT / "scripts" / "mutants.py")]
    leftovers = ("WANDB", "PL_", "PYTEST", "LIT_AGENTS_RUN")  # of other tests in this process
    env = {name: value for name, value in os.environ.items() if not name.startswith(leftovers)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert f"{len(FAULTS)} of {len(FAULTS)} faults killed (100%)" in done.stdout
