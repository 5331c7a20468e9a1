"""What README.md shows works. A comment before a code block says how it is tried:

``<!-- test: help -->``  every command of the block accepts its arguments (parsed whole, or ``--help`` for one without any),
``<!-- test: run -->``   the block runs as it stands, bash or Python, with the tiny model in the place of the packaged one.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lit_agents import audit as audit_command
from lit_agents import export as export_command
from lit_agents import tasks as tasks_command
from lit_agents.policy.hub import PACKAGED
from lit_agents.report import __main__ as report_command
from lit_agents.run.cli import FitCLI
from lit_agents.run.evaluation import EvaluateCLI
from lit_agents.study.command_line import parsed

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"<!-- test: (?P<how>\w+) -->\s*```(?P<language>\w+)\n(?P<code>.*?)```", re.S)


def blocks(how: str) -> list[re.Match[str]]:
    return [block for block in BLOCK.finditer(README.read_text()) if block["how"] == how] if README.exists() else []


def commands() -> list[str]:
    joined = [line for block in blocks("help") for line in block["code"].replace("\\\n", " ").splitlines()]
    return [line for line in joined if line.strip()]


def test_every_marker_is_one_that_is_tried():
    if not README.exists():
        pytest.skip("there is no README.md yet")
    assert {block["how"] for block in BLOCK.finditer(README.read_text())} <= {"help", "run"}
    assert len(BLOCK.findall(README.read_text())) == README.read_text().count("<!-- test:")


@pytest.mark.parametrize("command", commands() or [pytest.param("", marks=pytest.mark.skip("README.md marks none"))])
def test_a_command_accepts_its_arguments(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)
    assert words[:2] == ["python", "-m"], "README shows one way to start things"
    name, args = words[2], words[3:]
    parsers = {"lit_agents.fit": FitCLI, "lit_agents.evaluate": EvaluateCLI}
    if name in parsers:
        assert parsers[name](args).datamodule.tasks
        return
    if name == "lit_agents.tune":
        assert parsed(args)[0].labels()
        return
    others = {"lit_agents.tasks": tasks_command.main, "lit_agents.report": report_command.main}
    others |= {"lit_agents.audit": audit_command.main, "lit_agents.export": export_command.main}
    with pytest.raises(SystemExit) as stop:
        others[name]([*args, "--help"])
    assert stop.value.code == 0


@pytest.mark.parametrize("block", blocks("run") or [pytest.param(None, marks=pytest.mark.skip("README.md marks none"))])
def test_a_block_runs(block, tiny_weights, tmp_path):
    code = block["code"].replace(PACKAGED, str(tiny_weights))
    if block["language"] == "python":
        lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
        assert len(lines) <= 15
        command = [sys.executable, "-c", code]
    else:
        command = ["bash", "-euo", "pipefail", "-c", code]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LIT_AGENTS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
