from __future__ import annotations

import ast

import pytest

from lit_agents.environment.swe.generate.mutations import is_bug, sites
from lit_agents.environment.swe.generate.operators import KINDS, OPERATORS
from tests.environment.swe.little import SOURCE

EXAMPLES = {
    "comparison": ("return a == b", "return a != b"),
    "boolean": ("return a and b", "return a or b"),
    "negation": ("if a:\n        b()", "if not (a):\n        b()"),
    "branches": ("return a if b else c", "return c if b else a"),
    "arithmetic": ("return a + b", "return a - b"),
    "operands": ("return a - b", "return b - a"),
    "chain": ("return a + b + c", "return a + c"),
    "off_by_one": ("return a[1:b]", "return a[2:b]"),
    "constant": ("a = True", "a = False"),
    "returned": ("return a, b", "return b, a"),
    "exception": ("raise ValueError(a)", "raise TypeError(a)"),
    "keyword": ("a(b, c=d)", "a(b)"),
    "arguments": ("a(b, c)", "a(c, b)"),
    "statement": ("a = b", "pass"),
    "block": ("for a in b:\n        c()", "pass"),
}


def bugs(text: str, operator: str) -> list[str]:
    return [site.applied(text) for site in sites(text) if site.operator == operator]


@pytest.mark.parametrize("operator", EXAMPLES)
def test_an_operator_changes_what_it_says(operator: str):
    before, after = (f"def f(a, b, c, d):\n    {body}\n" for body in EXAMPLES[operator])
    assert after in bugs(before, operator)


def test_operators_of_signatures_and_classes():
    assert "def f(a, b=2):\n    pass\n" in bugs("def f(a, b=1):\n    pass\n", "default")
    assert bugs("class A(B, C):\n    x = 1\n", "base_class") == ["class A(C):\n    x = 1\n"]
    assert set(OPERATORS) == set(KINDS) == {*EXAMPLES, "default", "base_class"}


def test_text_that_is_not_ascii_brackets_and_comments_do_not_shift_a_change():
    text = 'def f(a, b):\n    s = "ä€😀"; return "é" + a == (  # a == b\n        b)\n'
    changed = bugs(text, "comparison")
    assert changed == ['def f(a, b):\n    s = "ä€😀"; return "é" + a != (  # a == b\n        b)\n']
    assert bugs("def f(a):\n    # \f\x85\n    return a\n", "returned") == ["def f(a):\n    # \f\x85\n    return None\n"]
    assert bugs("def f(a, b):\n    return (a + 1) - b\n", "operands") == [
        "def f(a, b):\n    return (1 + a) - b\n"
    ]  # not (b) - a + 1


def test_every_site_leaves_the_rest_of_the_text_alone_and_names_where_it_is():
    found = sites(SOURCE)
    assert len(found) > 20 and len({site.operator for site in found}) > 8
    for site in found:
        after = site.applied(SOURCE)
        assert after.startswith(SOURCE[: site.start]) and after.endswith(SOURCE[site.end :])
        node = next(n for n in ast.walk(ast.parse(SOURCE)) if isinstance(n, ast.FunctionDef) and n.name == site.entity)
        assert node.lineno <= SOURCE.count("\n", 0, site.start) + 1 <= (node.end_lineno or 0)


def test_what_is_the_same_program_or_none_is_no_bug():
    assert is_bug("a = 1\n", "a = 2\n")
    assert not is_bug("a = 1\n", "a = (1)  # the same\n")
    assert not is_bug("a = 1\n", "a = = 1\n")
    assert sites("no python :") == []
