"""How a user's repositories are installed and tested: a YAML or JSON file, which is merged over the table of `specs`.

For instance::

    pandas-dev/pandas:          # or "*", for all repositories that are not named
      "2.0":                    # from this version on, up to the next one that is named
        python: "3.10"
        packages: ["'numpy<2' cython", "-r requirements-dev.txt"]   # arguments of pip, one call each
        commands: ["python -m pip install --no-build-isolation ."]  # of the shell, in the repository's folder
        test: pytest -n0                                            # the test files follow
        variables: {TZ: UTC}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lit_agents.environment.swe.dataset.install_specs import OTHERS, SPECS, Spec, Specs, number_of
from lit_agents.environment.swe.pytest_runner import PYTEST
from lit_agents.errors import BadInput

FIELDS = ("python", "packages", "commands", "test", "variables")
CALL = re.compile(r"(?<![\w./=-])(python3? -m )?pytest(?![\w./=-])")
"""Of pytest, in a test command."""
WAY_OUT = 'Write owner/name: {"VERSION": {python: ..., packages: [...], commands: [...], test: ..., variables: {...}}}.'


def recipes(path: str | None) -> Specs:
    """The table, with what a file says of some repositories and versions in the place of what it has.

    Raises:
        BadInput: there is no such file, or it says something else.
    """
    merged = {repo.lower(): {spec.since: spec for spec in specs} for repo, specs in SPECS.items()}
    for repo, versions in (_read(path) if path else {}).items():
        if repo != OTHERS and repo.count("/") != 1:
            raise BadInput(str(path), f"{repo!r} is no owner/name.", WAY_OUT)
        if not isinstance(versions, Mapping) or not versions:
            raise BadInput(str(path), f"{repo} has no versions.", WAY_OUT)
        for since, fields in versions.items():
            merged.setdefault(repo.lower(), {})[since] = _spec(str(path), f"{repo} {since}", since, fields)
    return {repo: sorted(specs.values(), key=lambda spec: number_of(spec.since)) for repo, specs in merged.items()}


def _read(path: str) -> Mapping[str, Any]:
    """All scalars are texts: a version 1.10 is not the number 1.1."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
        if path.endswith(".json"):
            found = json.loads(text, parse_int=str, parse_float=str)
        else:
            found = yaml.load(text, Loader=yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(path, f"it cannot be read ({error}).", "Name a file of YAML or JSON.") from error
    if not isinstance(found, Mapping):
        raise BadInput(path, "it names no repositories.", WAY_OUT)
    return found


def _spec(path: str, where: str, since: str, fields: Any) -> Spec:
    if not isinstance(fields, Mapping):
        raise BadInput(path, f"{where} says nothing.", WAY_OUT)
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise BadInput(path, f"{where} has a field {unknown[0]!r}.", f"Choose from {', '.join(FIELDS)}.")
    for name in ("python", "test"):
        if not isinstance(fields.get(name, ""), str):
            raise BadInput(path, f"{name} of {where} is no text.", WAY_OUT)
    for name in ("packages", "commands"):
        lines = fields.get(name, [])
        if not isinstance(lines, list) or not all(isinstance(line, str) and line.strip() for line in lines):
            raise BadInput(path, f"{name} of {where} is no list of texts.", WAY_OUT)
    variables = fields.get("variables", {})
    if not isinstance(variables, Mapping) or not all(isinstance(value, str) for value in variables.values()):
        raise BadInput(path, f"variables of {where} are no texts by name.", WAY_OUT)
    return Spec(
        since,
        fields.get("python", ""),
        tuple(fields.get("packages", ())),
        _with_plugin(path, where, fields["test"]) if fields.get("test") else PYTEST,
        dict(variables),
        tuple(fields.get("commands", ())),
    )


def _with_plugin(path: str, where: str, test: str) -> str:
    """A test command whose call of pytest notes what each test does."""
    if "{plugin}" in test:
        return test
    found, count = CALL.subn(lambda match: f"{match[1] or ''}{PYTEST}", test, count=1)
    if not count:
        raise BadInput(path, f"test of {where} does not call pytest ({test}).", "Write it like pytest -n0.")
    return found
