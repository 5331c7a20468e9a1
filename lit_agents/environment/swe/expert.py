"""Plays the fix that is known through the turns an agent has: look at the place, change it, submit."""

from __future__ import annotations

import ast
import base64
import shlex
from difflib import SequenceMatcher
from pathlib import PurePosixPath

from lit_agents.environment.swe.commands import SUBMIT
from lit_agents.environment.swe.syntax import parsed
from lit_agents.environment.swe.tree import Change, Tree

MARK = "E"
LONGEST = 80
"""Lines that ``view`` shows of one function."""


def next_action(now: Tree, goal: Change, last: str) -> str:
    """The next action towards a repository in which some files are as in the goal.

    Args:
        now: the files the goal names, as they are.
        goal: as they should be.
        last: the action before this one: what it has looked at need not be looked at again.
    """
    for path, wanted in goal.items():
        there = now.get(path)
        if there == wanted:
            continue
        if wanted is None or wanted.is_link or (there is not None and there.is_link):
            return f"rm {path}" if wanted is None or there is not None else f"ln -s {wanted.data.decode()} {path}"
        if there is None:  # which ``edit`` could do, but for its folder
            return f"mkdir -p {shlex.quote(str(PurePosixPath(path).parent))} && touch {shlex.quote(path)}"
        old = there.data.decode(errors="replace")
        new = wanted.data.decode(errors="replace")
        if old == new:
            return f"chmod {'+' if wanted.executable else '-'}x {path}"
        if old.splitlines() == new.splitlines():
            if old.rstrip("\n") != new.rstrip("\n"):  # it is how lines end that differs, which ``edit`` does not write
                return f"base64 -d > {shlex.quote(path)} <<< {base64.b64encode(wanted.data).decode()}"
            return f"truncate -s -1 {path}" if len(old) > len(new) else f"echo >> {path}"
        first, last_line, lines = _hunk(old.splitlines(), new.splitlines(), path.endswith(".py"))
        look = f"view {path} {_around(old, first)}"
        if old and last != look:
            return look
        span = str(first) if first == last_line else f"{first}-{last_line}"
        mark = MARK
        while mark in lines:
            mark += MARK
        return "\n".join([f"edit {path} {span} <<'{mark}'", *lines, mark])
    return SUBMIT


def _hunk(old: list[str], new: list[str], is_python: bool) -> tuple[int, int, list[str]]:
    """The first lines that differ, and what they should be; what is only put in takes the line before it along, or after it.

    As few of the places that differ as leave a program: ``edit`` refuses what is none.
    """
    changes = [
        change for change in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if change[0] != "equal"
    ]
    _, a, _, c, _ = changes[0]
    if a == changes[0][2] and a:
        a, c = a - 1, c - 1
    for _, _, b, _, d in changes:
        if a == b and old:
            b, d = b + 1, d + 1
        if not is_python or _parses("\n".join([*old[:a], *new[c:d], *old[b:]]) + "\n"):
            break
    return a + 1, max(b, 1), new[c:d]


def _parses(text: str) -> bool:
    try:
        parsed(text)
    except (SyntaxError, ValueError):
        return False
    return True


def _around(text: str, line: int) -> str:
    """The innermost function or class a line is in, if it can be seen as a whole, or else the line."""
    best = ""

    def walk(node: ast.AST, prefix: str) -> None:
        nonlocal best
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                walk(child, prefix)
                continue
            if child.lineno <= line <= (child.end_lineno or 0):
                best = prefix + child.name if (child.end_lineno or 0) - child.lineno < LONGEST else ""
            walk(child, f"{prefix}{child.name}.")

    try:
        walk(parsed(text), "")
    except (SyntaxError, ValueError):
        return str(line)
    return best or str(line)
