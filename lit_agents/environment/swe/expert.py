"""Plays the fix that is known through the turns an agent has: look at the place, change it, submit."""

from __future__ import annotations

import ast
import base64
import shlex
from difflib import SequenceMatcher
from pathlib import PurePosixPath

from lit_agents.environment.swe.actions import SUBMIT
from lit_agents.environment.swe.actions import parsed as parsed_action
from lit_agents.environment.swe.file_tree import Change, File, Tree
from lit_agents.environment.swe.python_ast import parsed
from lit_agents.environment.swe.tools.edit import lines_of

MARK = "E"
LONGEST = 80
"""Lines that ``view`` shows of one function."""
PART = 48_000
"""Bytes that one command writes of a file that is no text; as base64 they are 64,000 characters."""


def next_action(now: Tree, goal: Change, last: str) -> str | None:
    """The next action towards a repository in which some files are as in the goal; None where the last one had no effect.

    Args:
        now: the files the goal names, as they are.
        goal: as they should be.
        last: the action before this one: what it has looked at need not be looked at again.
    """
    for path, wanted in goal.items():
        there = now.get(path)
        if there != wanted:
            action = _towards(path, there, wanted, last)
            return None if action == last else action
    return SUBMIT


def _towards(path: str, there: File | None, wanted: File | None, last: str) -> str:
    name, parent = _quoted(path), _quoted(str(PurePosixPath(path).parent))
    if wanted is None or (there is not None and there.is_link != wanted.is_link):
        return f"rm {name}"
    if wanted.is_link:
        target = shlex.quote(wanted.data.decode(errors="surrogateescape"))
        return f"mkdir -p {parent} && ln -sfn -- {target} {name}"
    if there is None:  # which ``edit`` could do, but for its folder, and for what has become of a folder without files
        return f"mkdir -p {parent} && rm -rf {name} && touch {name}"
    if there.data == wanted.data:
        return f"chmod {'+' if wanted.executable else '-'}x {name}"
    try:
        old, new = (lines_of(file.data.decode()) for file in (there, wanted))
    except UnicodeDecodeError:
        return _written(name, there.data, wanted.data)
    if [line.rstrip("\r\n") for line in old] == [line.rstrip("\r\n") for line in new]:
        if there.data == wanted.data + b"\n":
            return f"truncate -s -1 {name}"
        if there.data + b"\n" == wanted.data:
            return f"echo >> {name}"
        return _written(name, there.data, wanted.data)  # ``edit`` does not write other ends of lines
    return _edited(path, old, new, last) or _written(name, there.data, wanted.data)


def _edited(path: str, old: list[str], new: list[str], last: str) -> str:
    """An ``edit``, or first a look at its place; empty where ``edit`` cannot make the change."""
    old, new = ([line.rstrip("\r\n") for line in lines] for lines in (old, new))
    first, last_line, lines = _hunk(old, new, path.endswith(".py"))
    span = str(first) if first == last_line else f"{first}-{last_line}"
    mark = MARK
    while mark in lines:
        mark += MARK
    edit = "\n".join([f"edit {_quoted(path)} {span} <<'{mark}'", *lines, mark])
    if edit == last or parsed_action(edit) != (edit, ""):  # it was refused; it is too long, or no one action
        return ""
    look = f"view {_quoted(path)} {_around(chr(10).join(old), first)}"
    return look if old and last != look else edit


def _written(name: str, there: bytes, wanted: bytes) -> str:
    """The next part of a file's bytes; each begins where the file ends that is there, if that is how the wanted one begins."""
    start = len(there) if wanted.startswith(there) else 0
    part = base64.b64encode(wanted[start : start + PART]).decode()
    return f"truncate -s {start} {name} && base64 -d >> {name} <<< '{part}'"


def _quoted(path: str) -> str:
    """A path as one word of the shell that no command takes for an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


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
