"""What a bug can do to one node of a syntax tree: an operator gives spans of the text, and what would take their place.

SWE-smith's (arXiv 2504.21798), and more: comparisons, returned values, defaults, slices, exceptions, arguments by name.
"""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from lit_agents.environment.swe.python_ast import parsed

COMPARISONS = {"==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "is": "is not", "in": "not in"}
COMPARISONS |= {"is not": "is", "not in": "in"}
ARITHMETIC = {"+": "-", "-": "+", "*": "//", "/": "*", "//": "*", "%": "//", "&": "|", "|": "&", "^": "&"}
ARITHMETIC |= {"<<": ">>", ">>": "<<"}
EXCEPTIONS = {"ValueError": "TypeError", "TypeError": "ValueError", "KeyError": "IndexError", "IndexError": "KeyError"}
EXCEPTIONS |= {"AttributeError": "KeyError", "StopIteration": "ValueError", "RuntimeError": "ValueError"}
KINDS = {
    "comparison": "A comparison is not the right one.",
    "boolean": "Two conditions are joined in the wrong way.",
    "negation": "A condition is the wrong way round.",
    "branches": "Two branches are the wrong way round.",
    "arithmetic": "A calculation uses the wrong operator.",
    "operands": "The two sides of an operation are the wrong way round.",
    "chain": "A part of a longer expression is missing.",
    "off_by_one": "A number is off by one.",
    "constant": "A constant has the wrong value.",
    "returned": "A function returns the wrong thing.",
    "default": "A default value is wrong.",
    "exception": "The wrong exception is raised or caught.",
    "keyword": "An argument of a call is missing.",
    "arguments": "Two arguments of a call are the wrong way round.",
    "statement": "A statement is missing.",
    "block": "A block of code is missing.",
    "base_class": "A class does not inherit what it should.",
}
"""What every operator does, in the words of a hint."""


class Source:
    """A module's text, and where its nodes are in it."""

    def __init__(self, text: str) -> None:
        self.text, self.tree = text, parsed(text)
        lines = io.StringIO(
            text, newline=""
        ).readlines()  # str.splitlines knows more ends of lines than Python's grammar
        self._lines = [0]
        for line in lines:
            self._lines.append(self._lines[-1] + len(line))
        self._bytes = [line.encode() for line in lines] + [b""]

    def at(self, line: int, column: int) -> int:
        """A position in characters; `ast` counts columns in bytes of UTF-8."""
        return self._lines[line - 1] + len(self._bytes[line - 1][:column].decode(errors="replace"))

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Where a node begins and ends."""
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno or 0, node.end_col_offset or 0)

    def of(self, node: ast.expr | ast.stmt) -> str:
        """A node's text."""
        start, end = self.span(node)
        return self.text[start:end]


Span = tuple[int, int, str]


def _between(source: Source, left: ast.expr, right: ast.expr, table: dict[str, str]) -> Iterator[Span]:
    """The operator that stands between two nodes, and its partner."""
    start, end = source.span(left)[1], source.span(right)[0]
    names = sorted(table, key=len, reverse=True)
    pattern = "|".join(rf"\b{re.escape(n)}\b" if n[0].isalpha() else re.escape(n) for n in names)
    gap = re.sub(r"#[^\n]*", lambda comment: " " * len(comment.group()), source.text[start:end])
    if match := re.search(pattern.replace(r"\ ", r"\s+"), gap):
        new = table[" ".join(match.group().split())]
        yield start + match.start(), start + match.end(), new


def _comparison(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.Compare):
        for left, right in pairwise([node.left, *node.comparators]):
            yield from _between(source, left, right, COMPARISONS)


def _boolean(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.BoolOp) and len(node.values) == 2:
        yield from _between(source, node.values[0], node.values[1], {"and": "or", "or": "and"})


def _negation(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        start, end = source.span(node.test)
        if isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not):
            yield start, end, source.of(node.test.operand)
        else:
            yield start, end, f"not ({source.of(node.test)})"


def _branches(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.IfExp):
        (a, b), (c, d) = source.span(node.body), source.span(node.orelse)
        if source.of(node.test) in source.text[b:c] and "(" not in source.text[b:c].replace(source.of(node.test), ""):
            yield a, d, source.text[c:d] + source.text[b:c] + source.text[a:b]
    elif isinstance(node, ast.If) and node.orelse and not isinstance(node.orelse[0], ast.If):
        (a, b), (c, d) = _block(source, node.body), _block(source, node.orelse)
        yield a, d, source.text[c:d] + source.text[b:c] + source.text[a:b]


def _arithmetic(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.BinOp) and not _is_format(node):
        yield from _between(source, node.left, node.right, ARITHMETIC)
    elif isinstance(node, ast.AugAssign):
        yield from _between(source, node.target, node.value, {f"{old}=": f"{new}=" for old, new in ARITHMETIC.items()})


def _operands(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.BinOp) and not _is_format(node):
        yield from _swapped(source, node.left, node.right)


def _chain(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.BinOp) and not _is_format(node):
        yield source.span(node.left.left)[1], source.span(node.left.right)[1], ""
    elif isinstance(node, ast.BoolOp) and len(node.values) > 2:
        yield source.span(node.values[0])[1], source.span(node.values[1])[1], ""


def _off_by_one(source: Source, node: ast.AST) -> Iterator[Span]:
    """Numbers of a slice, an index, a `range`, an operation or a comparison; the ends of a slice that are no numbers."""
    for place in _numbers(node):
        if isinstance(place, ast.Constant) and type(place.value) is int:
            yield *source.span(place), str(place.value + 1)
            if place.value > 0:
                yield *source.span(place), str(place.value - 1)
        elif isinstance(node, ast.Slice) and not isinstance(place, ast.UnaryOp | ast.Constant):
            yield *source.span(place), f"{source.of(place)} + 1"


def _numbers(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Slice):
        return [end for end in (node.lower, node.upper) if end]
    if isinstance(node, ast.Subscript):
        return [node.slice]
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.Compare):
        return node.comparators
    is_range = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"
    return node.args if is_range and isinstance(node, ast.Call) else []


def _constant(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield *source.span(node), str(not node.value)


def _returned(source: Source, node: ast.AST) -> Iterator[Span]:
    if not isinstance(node, ast.Return) or node.value is None:
        return
    start, end = source.span(node.value)
    if isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2 and source.text[start] != "(":
        first, second = node.value.elts
        yield start, end, f"{source.of(second)}, {source.of(first)}"
    elif not isinstance(node.value, ast.Constant):
        yield start, end, "None"


def _default(source: Source, node: ast.AST) -> Iterator[Span]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for default in (*node.args.defaults, *node.args.kw_defaults):
        if isinstance(default, ast.Constant):
            if isinstance(default.value, bool):
                yield *source.span(default), str(not default.value)
            elif type(default.value) is int:
                yield *source.span(default), str(default.value + 1)
            elif default.value is None:
                yield *source.span(default), "()"


def _exception(source: Source, node: ast.AST) -> Iterator[Span]:
    named: ast.expr | None = None
    if isinstance(node, ast.Raise):
        named = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    elif isinstance(node, ast.ExceptHandler):
        named = node.type
    if isinstance(named, ast.Name) and named.id in EXCEPTIONS:
        yield *source.span(named), EXCEPTIONS[named.id]


def _keyword(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.Call):
        before = [*node.args, *(keyword.value for keyword in node.keywords)]
        for keyword in node.keywords:
            at = before.index(keyword.value)
            if keyword.arg and at > 0:
                yield source.span(before[at - 1])[1], source.span(keyword.value)[1], ""


def _arguments(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.Call) and len(node.args) == 2 and not any(isinstance(a, ast.Starred) for a in node.args):
        yield from _swapped(source, node.args[0], node.args[1])


def _swapped(source: Source, left: ast.expr, right: ast.expr) -> Iterator[Span]:
    """Two nodes in each other's place, unless one is in brackets that are not its own."""
    (a, b), (c, d) = source.span(left), source.span(right)
    if not set("()[]{}") & set(source.text[b:c]):
        yield a, d, source.text[c:d] + source.text[b:c] + source.text[a:b]


def _statement(source: Source, node: ast.AST) -> Iterator[Span]:
    simple = isinstance(node, ast.Assign | ast.AugAssign)
    call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if (simple or call) and isinstance(node, ast.stmt):
        yield *source.span(node), "pass"


def _block_gone(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try):
        start, end = source.span(node)
        if source.text[start : start + 4] != "elif":
            yield start, end, "pass"


def _base_class(source: Source, node: ast.AST) -> Iterator[Span]:
    if isinstance(node, ast.ClassDef) and len(node.bases) > 1:
        yield source.span(node.bases[0])[0], source.span(node.bases[1])[0], ""


def _block(source: Source, body: list[ast.stmt]) -> tuple[int, int]:
    return source.span(body[0])[0], source.span(body[-1])[1]


def _is_format(node: ast.BinOp) -> bool:
    """``"..." % values``."""
    return isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant | ast.JoinedStr)


OPERATORS: dict[str, Callable[[Source, ast.AST], Iterator[Span]]] = {
    "comparison": _comparison,
    "boolean": _boolean,
    "negation": _negation,
    "branches": _branches,
    "arithmetic": _arithmetic,
    "operands": _operands,
    "chain": _chain,
    "off_by_one": _off_by_one,
    "constant": _constant,
    "returned": _returned,
    "default": _default,
    "exception": _exception,
    "keyword": _keyword,
    "arguments": _arguments,
    "statement": _statement,
    "block": _block_gone,
    "base_class": _base_class,
}
