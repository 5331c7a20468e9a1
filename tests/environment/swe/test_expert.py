from __future__ import annotations

import base64
import re

import pytest

from lit_agents.environment.swe.expert import next_action
from lit_agents.environment.swe.tools.edit import parses
from lit_agents.environment.swe.tree import File

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
        elif match := re.fullmatch(r"base64 -d > a\.py <<< (\S+)", action):
            text = base64.b64decode(match[1]).decode()
        assert edits < 5
    assert text == goal and edits >= 1
    assert name != "wrapped" or edits == 2  # what opens and closes in one go, and the other place
