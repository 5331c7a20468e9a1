from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path

import pytest

from lit_agents.environment.swe.actions import parsed, prelude
from lit_agents.environment.swe.expert import next_action
from lit_agents.environment.swe.file_tree import File, read_folder, write_folder
from lit_agents.environment.swe.tools.edit import parses

BEFORE = "def f(a):\n    return g(\n        (\n            a,\n        )\n    )\n\n\ndef h():\n    return 1\n"
AFTER = "def f(a, b):\n    parts = (\n        a,\n        b,\n    )\n    return g(parts)\n\n\ndef h():\n    return 2\n"
TEXTS = {"nested": (BEFORE, AFTER), "one line": (BEFORE, BEFORE.replace("return 1", "return 2"))}
TEXTS |= {"wrapped": ("x = [1,\n    2]\ny = 3\nz = 4\n", "x = sum(\n    [1,\n    2]\n)\ny = 3\nz = 5\n")}
TEXTS |= {"put in first": (BEFORE, "import os\n" + BEFORE), "put in last": (BEFORE, BEFORE + "\n\nX = 1\n")}
TEXTS |= {"ends of lines": (BEFORE.replace("\n", "\r\n"), AFTER.replace("\n", "\r\n"))}
TEXTS |= {"taken out": (AFTER, AFTER.replace("        b,\n", "")), "new": ("", BEFORE)}


@pytest.mark.parametrize("name", TEXTS)
def test_every_edit_on_the_way_leaves_a_program(name: str):
    text, goal = TEXTS[name]
    last, edits = "", 0
    while (action := next_action({"a.py": File(text.encode())}, {"a.py": File(goal.encode())}, last)) != "submit":
        last = action
        if match := re.fullmatch(r"edit a\.py (\d+)(?:-(\d+))? <<'E'\n(.*\n)?E", action, re.S):
            first, until = int(match[1]), int(match[2] or match[1])
            lines, edits = text.splitlines(keepends=True), edits + 1
            text = "".join(lines[: first - 1]) + (match[3] or "") + "".join(lines[until:])
            assert parses(text)
        elif match := re.fullmatch(r"truncate -s 0 a\.py && base64 -d >> a\.py <<< '(\S+)'", action):
            text = base64.b64decode(match[1]).decode()
        assert edits < 5
    assert text == goal and edits >= 1
    assert name != "wrapped" or edits == 2  # what opens and closes in one go, and the other place


def played(files: dict[str, File], goal: dict[str, File | None], folder: Path) -> list[str]:
    """The actions, each run by a real shell in a folder, until there is nothing left to do."""
    write_folder(files, folder)
    actions = [""]
    while actions[-1] != "submit":
        assert len(actions) < 30, actions
        there = {path: file for path, file in read_folder(folder).items() if path in goal}
        action = next_action(there, goal, actions[-1])
        assert action is not None and parsed(action) == (action, "")
        subprocess.run(["bash", "-c", f"{prelude()}\n{action}"], cwd=folder, check=False, capture_output=True)
        actions.append(action)
    after = read_folder(folder)
    assert {path: after.get(path) for path in goal} == goal
    return actions[1:]


NAMES = [
    "a b.py",
    "it's.py",
    'say "x".py',
    "$HOME.py",
    "-rf.py",
    "new\nline.py",
    "x; touch y.py",
    "dir with space/é.py",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_file_is_one_word_of_the_shell(name: str, tmp_path: Path):
    old, new = File(b"x = 1\ny = 2\n"), File(b"x = 1\ny = 3\n", executable=True)
    played({name: old}, {name: new}, tmp_path / "edited")
    played({"other": old}, {f"new/{name}": new}, tmp_path / "made")
    played({name: old}, {name: None}, tmp_path / "removed")
    links = {name: File(b"c $d", is_link=True), "e/f": File(b"../x y", is_link=True)}
    played({name: File(b"a b", is_link=True)}, links, tmp_path / "link")
    assert not (tmp_path / "edited" / "y.py").exists()


SEPARATED = "x = 'a\u2028b\x0c\x85'\ny = 1\nz = 2\n"
FILES: dict[str, tuple[bytes | None, bytes]] = {
    "binary": (b"\x89PNG\xff\n\x00", b"\x89PNG\xfe\n\x00"),
    "binary that decodes alike": (b"\xff\n", b"\xfe\n"),
    "binary, new": (None, bytes(range(256))),
    "binary, longer than one command": (b"\xff", b"\xff" + bytes(130_000)),
    "binary to text": (b"\xff\n", b"x = 1\n"),
    "emptied": (b"\xff\n", b""),
    "lines that only str.splitlines sees": (SEPARATED.encode(), SEPARATED.replace("z = 2", "z = 3").encode()),
    "a separator is put in": (b"x = 'ab'\n", "x = 'a\u2028b'\n".encode()),
    "a fence, which an action would be cut at": (b"x = 1\n", b"x = '''\n```\ny\n```\n'''\n"),
    "lines longer than a command": (b"x = 1\n", b"x = '" + b"y" * 120_000 + b"'\n"),
    "no program in the end": (b"x = 1\ny = 2\n", b"x = 1\nprint 2\n"),
    "no end of the last line": (b"x = 1", b"x = 1\ny = 2\n"),
    "the last line's end taken away": (b"x = 1\n", b"x = 1"),
    "carriage returns alone": (b"a\rb\r", b"a\rc\r"),
}


@pytest.mark.parametrize("name", FILES)
def test_any_content_of_a_file_is_reached(name: str, tmp_path: Path):
    before, after = FILES[name]
    actions = played({} if before is None else {"a.py": File(before)}, {"a.py": File(after)}, tmp_path)
    assert not (name.startswith("binary") and any(action.startswith(("view", "edit")) for action in actions))


def test_a_file_becomes_a_folder_and_a_folder_a_file(tmp_path: Path):
    text = File(b"x\n")
    played({"a": text, "b/c": text}, {"a": None, "a/d": text, "b/c": None, "b": text}, tmp_path)


def test_an_action_without_effect_is_not_repeated_for_ever():
    goal = {"a": File(b"x", executable=True)}
    action = next_action({"a": File(b"x")}, goal, "")
    assert action == "chmod +x a" and next_action({"a": File(b"x")}, goal, action) is None
