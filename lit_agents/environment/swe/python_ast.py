"""Python's syntax trees, from any thread."""

from __future__ import annotations

import ast
from threading import Lock

_ONE_AT_A_TIME = Lock()


def parsed(source: str | bytes) -> ast.Module:
    """The tree of a module.

    CPython counts the depth of a tree under construction once for the whole interpreter, and `ast.parse` in two threads at
    once ends in "SystemError: AST constructor recursion depth mismatch" now and then (seen with 3.11; cpython issue 106905).

    Raises:
        SyntaxError, ValueError: it is no Python.
    """
    with _ONE_AT_A_TIME:
        return ast.parse(source)
