"""Keeps the work folder off the path while Python and pytest start.

It is the ``sitecustomize`` of every Python that the tests' command starts, in a folder that comes first on the path. In pytest's
process it is a plugin, too: the repository's folders come back when pytest has read the entry points of what is installed, and
before it imports anything of the repository. Until then nothing in the work folder can be found, whatever it is called: no
``sitecustomize``, no hook of setuptools, no entry point, no other pytest. Processes that tests start have the variables of
before.

PYTEST_DONT_REWRITE: it is imported before pytest begins.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import Any

PATHS = "LIT_AGENTS_PATHS"
"""The variable that holds what ``PYTHONPATH`` was."""
NO_CACHE = "no:cacheprovider"
OPTIONS = "PYTEST_ADDOPTS"
PLUGIN = "lit_agents_plugin"
SETTINGS = ("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "pyproject.toml", "tox.ini", "setup.cfg")
NAMED = re.compile(r"-p[\s=\"',]*([A-Za-z_]\w*)")
"""A plugin that the repository's own settings load by name."""
WARNED = re.compile(r"\b(?:error|ignore|always|all|default|module|once):[^:\n]*:([A-Za-z_]\w*)\.\w")
"""A module with a class of warnings that a filter names; pytest imports it before it loads installed plugins."""


class Hidden:
    """A finder that finds nothing, and takes the work folder off the path before any other finder is asked.

    Args:
        here: the folder of this file, which stands on the path in the place of `entries`.
        entries: what ``PYTHONPATH`` was.
    """

    def __init__(self, here: str, entries: list[str]) -> None:
        self.here, self.entries, self.work = here, entries, os.getcwd()
        self.first: list[str] = []
        self.later: list[str] = []
        self.hide()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Called for every import."""
        if path is None:
            self.hide()

    def hide(self) -> None:
        """Take away what is in the work folder, and remember where it was."""
        for index, entry in enumerate(list(sys.path)):
            if entry != self.here and self.is_inside(entry):
                (self.later if index else self.first).append(entry)
                sys.path.remove(entry)

    def is_inside(self, entry: str) -> bool:
        """Whether a folder is in the work folder, or a link that stands there."""
        works = (os.path.abspath(self.work), os.path.realpath(self.work))
        paths = (os.path.abspath(entry), os.path.realpath(entry))
        return any(path == work or path.startswith(work + os.sep) for path in paths for work in works)

    def show(self) -> None:
        """Everything as it would have been."""
        self.hide()
        at = sys.path.index(self.here)
        sys.path[at : at + 1] = self.entries
        sys.path[:] = [*self.first, *sys.path, *self.later]


class Wanted:
    """A finder for plugins of the repository itself that its settings or its installed metadata name.

    It comes last, so that nothing which is installed is replaced by the work folder.
    """

    def __init__(self, hidden: Hidden) -> None:
        self.hidden = hidden
        self.names = named()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """A top module with one of these names."""
        if path is not None or name not in self.names:
            return None
        return PathFinder.find_spec(name, [*self.hidden.first, *self.hidden.entries, *self.hidden.later], target)


def settings() -> str:
    """What the repository's own settings of pytest say."""
    text = ""
    for name in SETTINGS:
        if os.path.isfile(name):
            with open(name, encoding="utf-8", errors="replace") as file:
                text += file.read() + "\n"
    return text


def command() -> str:
    """The arguments of this process, a line each."""
    with open("/proc/self/cmdline", "rb") as file:
        return file.read().decode(errors="replace").replace("\0", "\n")


def named() -> set[str]:
    """Top modules of plugins and classes of warnings that are loaded before any test file."""
    found = set(re.findall(r"[A-Za-z_]\w*", os.environ.get("PYTEST_PLUGINS", "").replace(".", " ")))
    found.update(NAMED.findall(settings()))
    found.update(WARNED.findall(settings() + command()))
    try:
        from importlib.metadata import distributions
    except ImportError:  # Python 3.7
        return found
    for distribution in distributions():
        points = [point for point in distribution.entry_points if point.group == "pytest11"]
        found.update(point.value.partition(".")[0].partition(":")[0] for point in points)
    return found


def begin(module: Any) -> None:
    """Hide the work folder in pytest's process; any other has its path back at once.

    Args:
        module: this one, as a plugin of pytest.
    """
    here = os.path.dirname(os.path.abspath(module.__file__))
    before = os.environ.pop(PATHS, None)
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    hidden = Hidden(here, [os.path.abspath(entry) for entry in before.split(os.pathsep)] if before else [])
    if PLUGIN not in command().split("\n"):
        hidden.show()
        return
    wanted = Wanted(hidden)
    sys.meta_path.insert(0, hidden)
    sys.meta_path.append(wanted)
    options = os.environ.get(OPTIONS)
    if NO_CACHE not in command() + (options or "") + settings():  # or else the option would be unknown
        os.environ[OPTIONS] = f"{options or ''} -o cache_dir={here}/cache"
    __import__(PLUGIN)
    for name in (module.__name__, PLUGIN):
        os.unlink(os.path.join(here, name + ".py"))

    def pytest_load_initial_conftests() -> Iterator[None]:
        # before pytest's own, which imports the classes of warnings that the settings name
        sys.meta_path.remove(hidden)
        sys.meta_path.remove(wanted)
        hidden.show()
        os.environ.pop(OPTIONS, None)
        os.environ.update({OPTIONS: options} if options else {})
        for name in (module.__name__, PLUGIN):
            sys.modules.pop(name, None)
        yield

    pytest_load_initial_conftests.pytest_impl = {"hookwrapper": True, "tryfirst": True}  # type: ignore[attr-defined]
    module.pytest_load_initial_conftests = pytest_load_initial_conftests
