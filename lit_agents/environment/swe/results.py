"""What every single test did: a plugin that is handed to pytest in the sandbox, and who reads what it says.

The plugin writes one line at pytest's end, marked with a word that is new every time, to the output that pytest had before it
captured anything; so nothing that tests print can be taken for it, and no setting of colours or verbosity hides it. Code under
test runs in the same process and could still look for the plugin: what is graded is repaired code, not an enemy's.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lit_agents.environment.swe.sandbox.base import Sandbox
from lit_agents.environment.swe.sandbox.terms import Completed, SandboxError

PYTEST = "pytest {plugin} -q --tb=no --rootdir=. -p no:cacheprovider"
"""How tests are run, with the repository's own settings."""
NO_COMMAND = 127
OUTPUT_CAP = 32 << 20
"""Bytes of output of one run of the tests that are kept: the plugin's line is the last of it."""
PLUGIN = """
import json, os
out, worst = os.dup(1), {}
os.unlink(__file__)

def note(test, verdict):
    order = ("skipped", "passed", "failed")
    worst[test] = max(worst.get(test, "skipped"), verdict, key=order.index)

expected_to_fail = set()

def pytest_collection_modifyitems(items):
    expected_to_fail.update(item.nodeid for item in items if item.get_closest_marker("xfail"))

def pytest_runtest_logreport(report):
    if report.outcome == "failed":
        note(report.nodeid, "failed")
    elif report.when == "call" or report.outcome == "skipped":
        expected = report.outcome == "skipped" and hasattr(report, "wasxfail") and report.nodeid in expected_to_fail
        note(report.nodeid, "passed" if expected or report.outcome == "passed" else "skipped")

def pytest_unconfigure(config):
    line = "\\nWORD " + json.dumps(worst) + "\\n"
    data = line.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(out, data):]
"""
BEGUN = b"lit_agents: begun\n"
"""Part of the output where tests could be started at all."""
RUN = """T=$(mktemp -d) && cat >$T/lit_agents_plugin.py && echo "lit_agents: begun" || exit 1
export PYTHONPATH="$T:$PYTHONPATH"
{command}
code=$?; rm -rf "$T"; exit $code"""


@dataclass(frozen=True)
class Ran:
    """One run of tests.

    Attributes:
        verdicts: test id -> ``passed`` (an expected failure, too), ``failed`` (an error, too) or ``skipped``.
        done: how the command ended.
    """

    verdicts: Mapping[str, str]
    done: Completed

    @property
    def passed(self) -> frozenset[str]:
        """Ids as the datasets write them: cut at the first space. One that stands for several tests needs all of them."""
        good: dict[str, bool] = {}
        for test, verdict in self.verdicts.items():
            short = cut(test)
            good[short] = good.get(short, True) and verdict == "passed"
        return frozenset(test for test, passed in good.items() if passed)


def cut(test: str) -> str:
    """A test id up to its first space, as the log parser of SWE-bench left it."""
    return test.split(" ", 1)[0]


def steady(tests: Iterable[str], first: frozenset[str], second: frozenset[str]) -> frozenset[str]:
    """Those that passed in both of two runs of the same code, or in neither, and whose parametrized brothers did so too.

    Some tests draw lots. And where one has its number in a set as a name (isodate's have), and the set is ordered by
    addresses, some names are the same in two runs by chance.
    """
    unsteady = {test.partition("[")[0] for test in first ^ second}
    return frozenset(test for test in tests if test.partition("[")[0] not in unsteady)


def files_of(tests: Iterable[str]) -> list[str]:
    """The files that tests are in."""
    return sorted({test.partition("::")[0] for test in tests})


def run_tests(sandbox: Sandbox, command: str, timeout: float) -> Ran:
    """Run a command that is or ends in a call of pytest, in the sandbox as it stands.

    Args:
        command: shell; ``{plugin}`` stands for the arguments that load the plugin.
        timeout: seconds; no test has a verdict if they do not suffice.
    """
    return Ran(*reported(sandbox, command, timeout, PLUGIN))


def reported(sandbox: Sandbox, command: str, timeout: float, plugin: str) -> tuple[dict[str, Any], Completed]:
    """What a plugin says in its line, nothing if it came to none, and how the command ended.

    Args:
        plugin: its source; it removes its file and marks its line, which is JSON, with ``WORD``.

    Raises:
        SandboxError: the command was never started.
    """
    word = secrets.token_hex(16)
    script = RUN.format(command=command.replace("{plugin}", "-p lit_agents_plugin"))
    done = sandbox.run(script, timeout, cap=OUTPUT_CAP, stdin=plugin.replace("WORD", word).encode())
    if BEGUN not in done.output or (done.code == NO_COMMAND and word.encode() not in done.output):
        said = done.output[-300:].decode(errors="replace").strip()
        raise SandboxError(f"the tests could not be started (exit code {done.code}): {said}")
    for line in reversed(done.output.decode(errors="replace").splitlines()):
        if line.startswith(word):
            return dict(json.loads(line.removeprefix(word))), done
    return {}, done


def share(passed: Iterable[str], wanted: Iterable[str]) -> float:
    """Which part of the tests that are wanted passed; 0 to 1."""
    wanted = set(wanted)
    return len(wanted & set(passed)) / len(wanted)
