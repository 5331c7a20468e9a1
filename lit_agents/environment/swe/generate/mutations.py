"""Small bugs for working code: every place where an operator can change a function's source, and what it would be changed to.

The idea is that of SWE-smith (arXiv 2504.21798): break a working repository and let its own tests tell. A
change replaces one span of the text, so that comments and layout stay as they are and the fix is as small as the bug.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from lit_agents.environment.swe.generate.operators import OPERATORS, Source
from lit_agents.environment.swe.python_ast import parsed


@dataclass(frozen=True)
class Site:
    """A change that could be made.

    Attributes:
        operator: one of `operators.KINDS`.
        entity: dotted name of the function or class it is in.
        start, end: the span of the source, in characters.
        text: what takes its place.
    """

    operator: str
    entity: str
    start: int
    end: int
    text: str

    def applied(self, source: str) -> str:
        """The source with the bug."""
        return source[: self.start] + self.text + source[self.end :]


def sites(text: str) -> list[Site]:
    """All changes that could be made to a module, in the order of its text; empty for what is no Python.

    Some give what is no program, or the same one: see `is_bug`.
    """
    try:
        source = Source(text)
    except (SyntaxError, ValueError):
        return []
    found = [
        Site(operator, name, *span)
        for name, entity in _entities(source.tree, "")
        for node in _own_nodes(entity)
        for operator, find in OPERATORS.items()
        for span in find(source, node)
    ]
    return sorted(dict.fromkeys(found), key=lambda site: (site.start, site.end))


def is_bug(before: str, after: str) -> bool:
    """Whether the text after a change is a program, and another one than before."""
    try:
        return ast.dump(parsed(after)) != ast.dump(parsed(before))
    except (SyntaxError, ValueError):
        return False


def _entities(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name, node
            yield from _entities(node, f"{prefix}{node.name}.")
        else:
            yield from _entities(node, prefix)


def _own_nodes(entity: ast.AST) -> Iterator[ast.AST]:
    """The entity and what is in it, but for functions and classes within, which are entities of their own."""
    yield entity
    for child in ast.iter_child_nodes(entity):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _own_nodes(child)
