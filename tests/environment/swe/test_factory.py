from __future__ import annotations

from lit_agents.environment.swe.difficulty import SMALL, difficulty, is_small
from lit_agents.environment.swe.factory import candidates
from lit_agents.environment.swe.packages import Package
from lit_agents.environment.swe.tree import File

LONG = "def long(a):\n" + "    a = a + 1\n" * SMALL + "    return a\n"
SHORT = "def short(a, b):\n    if a == b:\n        return (a +\n                b)\n    return a - b\n"


def test_small_candidates_are_the_others_without_the_long_in_the_same_order():
    tree = {f"pkg/{name}.py": File(text.encode()) for name, text in (("long", LONG), ("short", SHORT))}
    package = Package("pkg", "1.0")
    every, small = list(candidates(package, tree)), list(candidates(package, tree, small=True))
    assert [c.number for c in every] == list(range(len(every)))
    assert small == [c for c in every if c.path == "pkg/short.py" and "\n" not in SHORT[c.site.start : c.site.end]]
    assert 0 < len(small) < sum(c.path == "pkg/short.py" for c in every)  # one spans two lines


def test_labels_say_the_same():
    tree = {"pkg/short.py": File(SHORT.encode()), "tests/test_a.py": File(b"from pkg.short import short\n")}
    for candidate in candidates(Package("pkg", "1.0"), tree):
        if candidate.path != "pkg/short.py":
            continue
        labels = difficulty(candidate.path, SHORT, candidate.site, ["tests/test_a.py::test_it"], tree)
        assert labels["function_lines"] == "5" and labels["failing"] == "1" and labels["distance"] == "function"
        assert is_small(SHORT, candidate.site) == (labels["patch_lines"] == "1")
