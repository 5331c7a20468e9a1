"""Folders and identifiers with any name: the checkout's own, the cache's, and those of rows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lit_agents.environment.swe.actions import TOOLS, prelude
from lit_agents.environment.swe.file_tree import File, packed
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.types import Runtime
from lit_agents.system.files import json_lines, name_of_file
from tests.sandbox.fixtures import PYTHON


@pytest.mark.parametrize("name", ["a checkout", 'it\'s "$HOME"\n;`x`'], ids=["space", "everything"])
def test_the_tools_work_wherever_the_checkout_is(sandbox: Sandbox, tmp_path: Path, name: str):
    tools = tmp_path / name / "tools"
    shutil.copytree(TOOLS, tools)
    for folder in (tools, *tools.parents):
        if tmp_path in folder.parents or folder == tmp_path:
            folder.chmod(0o755)
    try:
        sandbox.open(Runtime((*PYTHON.shown, str(tools)), PYTHON.path, prelude=prelude(tools)))
        sandbox.reset(packed({"a b.py": File(b"x = 1\n")}))
        said = [
            sandbox.run(line, 20).output.decode()
            for line in ("view 'a b.py'", "edit 'a b.py' 1 <<< 'x = 2'", "search x")
        ]
        assert said == ["1 x = 1\n", "1 x = 2\n", "./a b.py:1:x = 2\n"]
    finally:
        sandbox.open(PYTHON)


def test_a_line_is_one_where_Python_counts_one(tmp_path: Path):
    def tool(name: str, *args: str, given: str = "") -> str:
        command = [sys.executable, "-I", str(TOOLS / f"{name}.py"), *args]
        return subprocess.run(command, cwd=tmp_path, input=given, capture_output=True, text=True, check=True).stdout

    (tmp_path / "a.py").write_bytes("x = 'a\u2028b\x85'\n\x0c\ny = 1".encode())
    assert tool("view", "a.py", "3").splitlines()[-1] == "3 y = 1"
    assert tool("edit", "a.py", "3", given="y = 2").split("\n")[-2] == "3 y = 2"
    assert (tmp_path / "a.py").read_bytes() == "x = 'a\u2028b\x85'\n\x0c\ny = 2\n".encode()
    (tmp_path / "b.py").write_bytes(b"x = 1")
    tool("edit", "b.py", "2", given="y = 2")
    assert (tmp_path / "b.py").read_bytes() == b"x = 1\ny = 2\n"


def test_an_identifier_is_the_name_of_one_file_in_one_folder():
    plain = ["me__little-1", "getmoto__moto-7365", "conan-io__conan-1.2+3", "_x"]
    assert [name_of_file(name) for name in plain] == plain
    others = [
        "a/b",
        "../../etc/passwd",
        "..",
        ".",
        "",
        ".hidden",
        "A__b-1",
        "a__B-1",
        "a b",
        "a\nb",
        "a\x00b",
        "é",
        "\ud800",
    ]
    others += ["x" * 500, "x" * 501, "a:b", "-rf", "a~b"]
    names = [name_of_file(name) for name in others]
    assert len(set(map(str.lower, names))) == len(others)
    for name in names:
        assert Path(name).name == name and not name.startswith((".", "-")) and name.isascii() and len(name) < 120
        assert name_of_file(name) != name  # so that none is that of another identifier


def test_a_line_of_json_ends_at_a_newline_and_nowhere_else(tmp_path: Path):
    rows = [{"text": "a\u2028b\u2029c\x85d\x0ce"}, {"text": "\x1c\x1d\x1e"}]
    raw = "\ufeff" + "\r\n".join(
        [json.dumps(rows[0], ensure_ascii=False).replace("\\f", "\\u000c"), "", json.dumps(rows[1])]
    )
    (tmp_path / "a.jsonl").write_bytes(raw.encode())
    assert json_lines(tmp_path / "a.jsonl") == rows
