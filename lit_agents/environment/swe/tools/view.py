"""In the sandbox: ``view FILE [LINE or NAME]`` prints numbered lines of a file. Python 3.7 and nothing else is needed."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

FIRST = 40
"""Lines that are shown of a file, or around a line."""
LONGEST = 80
"""Lines that are shown of a function or class."""


def place(source: str, name: str) -> tuple[int, int] | None:
    """First and last line of a function or class by its name, dotted or not; None if there is none."""

    def walk(node: ast.AST, prefix: str) -> tuple[int, int] | None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                own = prefix + child.name
                if name in (own, child.name):
                    last = max(int(getattr(n, "end_lineno", 0) or getattr(n, "lineno", 0)) for n in ast.walk(child))
                    first = min([child.lineno] + [d.lineno for d in child.decorator_list])
                    return first, last
                found = walk(child, own + ".")
            else:
                found = walk(child, prefix)
            if found:
                return found
        return None

    try:
        return walk(ast.parse(source), "")
    except SyntaxError:
        return None


def main(args: list[str]) -> int | str:
    """Zero, or what is wrong."""
    if not 1 <= len(args) <= 2:
        return "usage: view FILE [LINE or NAME]"
    try:
        source = Path(args[0]).read_bytes().decode(errors="replace")
    except OSError as error:
        return f"view: {error}"
    # as Python counts them: at newlines and carriage returns, not at form feeds or U+2028
    lines = [line.rstrip("\r\n") for line in io.StringIO(source, newline="")]
    first, last = 1, FIRST
    if len(args) == 2 and args[1].isdigit():
        first = max(1, int(args[1]) - FIRST // 2)
        last = first + FIRST - 1
    elif len(args) == 2:
        found = place(source, args[1])
        if not found:
            return f"view: there is no function or class {args[1]} in {args[0]}"
        first, last = found[0], min(found[1], found[0] + LONGEST - 1)
    for number in range(first, min(last, len(lines)) + 1):
        print(f"{number} {lines[number - 1]}")
    if last < len(lines) and len(args) == 1:
        print(f"({len(lines)} lines in all)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
