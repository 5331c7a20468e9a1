"""In the sandbox: ``edit FILE FIRST[-LAST]`` puts its input in the place of lines of a file, unless that breaks its syntax."""

from __future__ import annotations

import ast
import io
import re
import sys
from pathlib import Path

AROUND = 2
"""Lines that are shown before and after what was changed."""


def lines_of(text: str) -> list[str]:
    """Its lines with their ends, as Python counts them: at newlines and carriage returns, not at form feeds or U+2028."""
    return list(io.StringIO(text, newline=""))


def parses(text: str) -> bool:
    """Whether it is Python."""
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def main(args: list[str]) -> int | str:
    """Zero, or what is wrong."""
    match = re.match(r"(\d+)(?:-(\d+))?$", args[1]) if len(args) == 2 else None
    if not match:
        return "usage: edit FILE FIRST[-LAST] <<'E' (new lines, then a line E)"
    path, first = Path(args[0]), max(1, int(match.group(1)))
    last = int(match.group(2) or first)
    try:
        before = path.read_bytes().decode() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        return f"edit: {error}"
    lines = lines_of(before)
    if first > len(lines) + 1 or last < first:
        return f"edit: there are no lines {args[1]} in {path}, which has {len(lines)}"
    try:
        new = lines_of(sys.stdin.buffer.read().decode())
    except UnicodeDecodeError as error:
        return f"edit: the new lines are not UTF-8 ({error})"
    for part in (new, lines if first > len(lines) else []):  # what is put after a last line without an end
        if part and not part[-1].endswith("\n"):
            part[-1] += "\n"
    after = "".join(lines[: first - 1] + new + lines[last:])
    if path.suffix == ".py" and parses(before) and not parses(after):
        return f"edit: nothing was changed, because {path} would be no Python any more"
    try:
        path.write_bytes(after.encode())
    except OSError as error:
        return f"edit: {error}"
    shown = [line.rstrip("\r\n") for line in lines_of(after)]
    for number in range(max(1, first - AROUND), min(len(shown), first + len(new) - 1 + AROUND) + 1):
        print(f"{number} {shown[number - 1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
