"""The list of one-line faults: each applies, and each is noticed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.mutation.__main__ import jobs_for, outcomes
from tests.mutation.faults import FAULTS

ROOT = Path(__file__).parents[2]
BEGUN = float(os.environ.get("TESTS_BEGAN", time.time()))
UNTIL, LEAST = 40, 2
"""Minutes of `scripts/test.sh` after which no fault is begun, and what faults have in any case: `--all` is to end in 50."""


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


def test_no_fault_begins_when_the_time_is_over_and_nobody_waits_for_one():
    assert list(outcomes(jobs_for(list(FAULTS)), [ROOT / "is not touched"], until=-1.0)) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_faults_are_noticed_as_many_as_there_is_time_for(capsys):
    minutes = max(LEAST, UNTIL - (time.time() - BEGUN) / 60)
    command = [sys.executable, "-m", "tests.mutation", "--minutes", f"{minutes:.1f}"]
    leftovers = ("WANDB", "PL_", "PYTEST", "LIT_AGENTS_RUN")  # of other tests in this process
    env = {name: value for name, value in os.environ.items() if not name.startswith(leftovers)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    last = done.stdout.splitlines()[-1]
    killed = re.fullmatch(r"(\d+) of \1 faults killed \(100%\).*", last)
    assert killed and int(killed[1]) > 0, last
    with capsys.disabled():
        print(f" {last}")
