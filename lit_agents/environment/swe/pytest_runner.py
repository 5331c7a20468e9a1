"""What every single test did: a plugin that is handed to pytest in the sandbox, and who reads what it says.

The plugin (`inside.verdicts`) writes one line at pytest's end, marked with a word that is new every time, to the output that
there was before anything of the repository was imported; so nothing that tests print can be taken for it, and no setting of
colours or verbosity hides it. `inside.start` keeps the repository off Python's path until pytest has started. What pytest would
keep in the repository goes into a folder that is thrown away, so that options and settings of pytest's cache still work.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_agents.environment.swe.file_tree import File, packed
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.types import Completed, SandboxError

PYTEST = "pytest {plugin} -q --tb=no --rootdir=."
"""How tests are run, with the repository's own settings."""
ARGUMENTS = "-p sitecustomize -p lit_agents_plugin"
"""What ``{plugin}`` stands for."""
NO_COMMAND = 127
OUTPUT_CAP = 32 << 20
"""Bytes of output of one run of the tests that are kept: the plugin's line is the last of it."""
INSIDE = Path(__file__).parent / "in_sandbox"
START = (INSIDE / "start.py").read_text(encoding="utf-8") + "\n\nbegin(sys.modules[__name__])\n"
VERDICTS = (INSIDE / "verdicts.py").read_text(encoding="utf-8") + '\n\nglobals().update(begin("WORD"))\n'
BEGUN = b"lit_agents: begun\n"
"""Part of the output where tests could be started at all."""
RUN = """T=$(mktemp -d) && tar -xf - -C "$T" && echo "lit_agents: begun" || exit 1
[ -z "${PYTHONPATH+x}" ] || export LIT_AGENTS_PATHS="$PYTHONPATH"
export PYTHONPATH="$T"
{command}
code=$?; rm -rf "$T"; exit $code"""
ERROR = re.compile(r"^(E  +|ERROR\b|\S*: error: |\w*(Error|Exception|Exit)\b.*: )|^!+ .*error", re.IGNORECASE)
"""A line in which pytest or Python says what is wrong."""
LONGEST_REASON = 300


@dataclass(frozen=True)
class Ran:
    """One run of tests.

    Attributes:
        verdicts: test id -> ``passed`` (an expected failure, too), ``failed`` (an error, too) or ``skipped``.
        done: how the command ended.
        canary: what came of the test that must fail; empty if it was not run, or not to be had.
        patched: names of pytest's own functions that were replaced after it had started.
    """

    verdicts: Mapping[str, str]
    done: Completed
    canary: str = ""
    patched: tuple[str, ...] = ()

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
    said, done = reported(sandbox, command, timeout, VERDICTS)
    return Ran(said.get("verdicts", {}), done, said.get("canary", ""), tuple(said.get("patched", ())))


def reported(sandbox: Sandbox, command: str, timeout: float, plugin: str) -> tuple[dict[str, Any], Completed]:
    """What a plugin says in its line, nothing if there is none or more than one, and how the command ended.

    Args:
        plugin: its source; it marks its line, which is JSON, with ``WORD``.

    Raises:
        SandboxError: the command was never started.
    """
    word = secrets.token_hex(16)
    files = {"sitecustomize.py": START, "lit_agents_plugin.py": plugin.replace("WORD", word)}
    script = RUN.replace("{command}", command.replace("{plugin}", ARGUMENTS))
    sent = packed({name: File(text.encode()) for name, text in files.items()})
    done = sandbox.run(script, timeout, cap=OUTPUT_CAP, stdin=sent)
    if BEGUN not in done.output or (done.code == NO_COMMAND and word.encode() not in done.output):
        raise SandboxError(f"the tests could not be started (exit code {done.code}): {reason(done.output)}")
    lines = [line for line in done.output.decode(errors="replace").splitlines() if line.startswith(word)]
    if len(lines) != 1:
        return {}, done
    try:
        return dict(json.loads(lines[0].removeprefix(word))), done
    except ValueError:  # whoever has found the word and cannot write
        return {}, done


def reason(output: bytes) -> str:
    """Why tests could not be run, as pytest or Python says it: its lines of errors, or else its last line."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    found = [line for line in lines if ERROR.match(line)]
    return "; ".join(dict.fromkeys(found))[:LONGEST_REASON] or "".join(lines[-1:])[-LONGEST_REASON:]


def share(passed: Iterable[str], wanted: Iterable[str]) -> float:
    """Which part of the tests that are wanted passed; 0 to 1."""
    wanted = set(wanted)
    return len(wanted & set(passed)) / len(wanted)
