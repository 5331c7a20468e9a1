"""How hard a generated task is, as labels by which results are told apart."""

from __future__ import annotations

import ast
from functools import lru_cache

from lit_agents.environment.swe.file_tree import Tree
from lit_agents.environment.swe.generate.mutations import Site
from lit_agents.environment.swe.python_ast import parsed

SMALL = 25
"""Lines of the longest function that is short."""


def difficulty(path: str, before: str, site: Site, failing: list[str], tree: Tree) -> dict[str, str]:
    """Labels of a bug.

    Args:
        path: the file it is in.
        before: that file as it should be.
        site: the bug.
        failing: the tests that fail by it.
        tree: the repository without it.
    """
    return {
        "operator": site.operator,
        "patch_lines": str(before.count("\n", site.start, site.end) + 1),
        "function_lines": str(_lines(before, site.entity)),
        "failing": _bucket(len(failing)),
        "distance": _distance(path, site.entity, failing, tree),
    }


def is_small(before: str, site: Site) -> bool:
    """Whether a bug is one line in a short function."""
    return "\n" not in before[site.start : site.end] and _lines(before, site.entity) <= SMALL


def _lines(text: str, entity: str) -> int:
    """Lines of a function or class."""
    node: ast.AST = _tree(text)
    for name in entity.split("."):
        node = next(n for n in ast.walk(node) if getattr(n, "name", None) == name and hasattr(n, "body"))
    return int(getattr(node, "end_lineno", 0)) - int(getattr(node, "lineno", 0)) + 1


@lru_cache(maxsize=64)
def _tree(text: str) -> ast.Module:
    """Nobody changes it."""
    return parsed(text)


def _bucket(count: int) -> str:
    return next(name for most, name in ((1, "1"), (5, "2-5"), (20, "6-20"), (10**9, "more")) if count <= most)


def _distance(path: str, entity: str, failing: list[str], tree: Tree) -> str:
    """How far a failing test is from the bug: it names the ``function``, the ``module``, or ``neither``."""
    texts = [
        tree[file].data.decode(errors="replace") for file in {test.split("::")[0] for test in failing} if file in tree
    ]
    if any(entity.split(".")[-1] in text for text in texts):
        return "function"
    module = path.rpartition("/")[2].removesuffix(".py")
    return "module" if any(module in text for text in texts) else "neither"
