"""Where a repository's tests find what they need: a container image, or a virtual environment made once and kept."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from lit_agents.environment.swe.file_tree import Tree, write_folder
from lit_agents.environment.swe.task import Requirements
from lit_agents.errors import BadInput
from lit_agents.sandbox.types import Runtime

QUIET_PYTHON = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
"""The home folder is the work folder: what an agent puts below it would come before what is installed."""
VARIABLES = {"PYTHONPATH": "{work}:{work}/src", **QUIET_PYTHON, "PYTHONHASHSEED": "0"}
_QUIET = {"SETUPTOOLS_SCM_PRETEND_VERSION": "0", "PBR_VERSION": "0", "PIP_USE_PEP517": "1"}
"""There is no history from which a version could be told; and an old pip has to note what it installed from where."""
PATIENCE = 3600.0
"""Seconds."""
ACTIVATE = ". /opt/miniconda3/bin/activate testbed"
"""In the images of SWE-Gym and SWE-bench."""


def runtime(needs: Requirements, folder: Path, images: bool, tree: Tree, seconds: float = PATIENCE) -> Runtime:
    """What a sandbox is opened with.

    Args:
        folder: where virtual environments are.
        images: whether the sandbox can run an image.
        tree: the repository, which pip may be told to install.
        seconds: that one step of making an environment may take.

    Raises:
        BadInput: there is neither an image nor a virtual environment that can be made.
    """
    if images and needs.image:
        return Runtime(image=needs.image, prelude=ACTIVATE, variables={**QUIET_PYTHON, **needs.variables})
    venv = virtual_environment(needs, folder, tree, seconds)
    prefix = _prefix(venv)
    variables = {**VARIABLES, "VIRTUAL_ENV": str(venv), **needs.variables}
    return Runtime(shown=(str(venv), prefix), path=(f"{venv}/bin",), variables=variables)


def virtual_environment(needs: Requirements, folder: Path, tree: Tree, seconds: float = PATIENCE) -> Path:
    """The one with these packages, made if it is not there.

    Raises:
        BadInput: there is no such Python, or pip or a command fails.
    """
    python = _python(needs.python)
    text = json.dumps([python, needs.install, needs.key, *needs.commands])
    venv = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    venv.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{venv}.lock"):
        if not (venv / "complete").is_file():
            shutil.rmtree(venv, ignore_errors=True)
            _run([python, "-m", "venv", str(venv)], f"Python {needs.python}", seconds)
            pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            active = {"VIRTUAL_ENV": str(venv), "PATH": f"{venv}/bin:{os.environ.get('PATH', os.defpath)}"}
            with tempfile.TemporaryDirectory(
                prefix="lit_agents-build-"
            ) as place:  # a line may name the repository's own files
                write_folder(tree, Path(place))
                for line in needs.install:
                    _run([*pip, *shlex.split(line)], f"pip install {line}", seconds, place)
                for line in needs.commands:
                    _run(["bash", "-ec", line], line, seconds, place, active | dict(needs.variables))
            _forget_what_is_repaired(venv)
            (venv / "complete").write_text(text)
    return venv


def _forget_what_is_repaired(venv: Path) -> None:
    """Take out what was installed from the repository, but its name and version.

    The work folder has it, at the commit of each task; a later commit would have the fix of an earlier one. Nor does a task need
    pip, which brings packages of its own.
    """
    (packages,) = venv.glob("lib/python3*/site-packages")
    for note in packages.glob("*.dist-info/direct_url.json"):
        if "dir_info" not in json.loads(note.read_text()):
            continue
        record = (note.parent / "RECORD").read_bytes().decode()
        for name in (line[0] for line in csv.reader(io.StringIO(record, newline="")) if line):
            path = packages / name
            if packages not in path.resolve().parents or path.parent == note.parent:
                continue
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == packages or any(folder.iterdir()):
                    break
                folder.rmdir()
    for name in ("pip", *(path.name for path in packages.glob("pip-*.dist-info"))):
        shutil.rmtree(packages / name, ignore_errors=True)


def _run(
    command: list[str], named: str, seconds: float, place: str | None = None, more: Mapping[str, str] | None = None
) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env=_QUIET | os.environ | dict(more or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(named, f"it did not end in {seconds:g} seconds.", "Raise row_seconds.") from error
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if "ERROR" in line] or done.stdout.splitlines()
        raise BadInput(named, f"it failed: {' '.join(lines[-3:])[:500]}", "Check the network and the requirements.")


def _python(version: str) -> str:
    """An interpreter of a version."""
    if not version or version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return os.path.realpath(sys.executable) if sys.prefix == sys.base_prefix else f"{sys.base_prefix}/bin/python3"
    named = f"python{version}"
    candidates = [shutil.which(named), *map(str, sorted(Path(sys.base_prefix).parent.glob(f"{version}.*/bin/{named}")))]
    for found in candidates:
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return os.path.realpath(found)
    raise BadInput(
        f"python{version}", "there is no such interpreter here.", f"Install it so that {named} is on the PATH."
    )


def _prefix(venv: Path) -> str:
    """The installation that a virtual environment belongs to."""
    home = next(line for line in (venv / "pyvenv.cfg").read_text().splitlines() if line.startswith("home"))
    return str(Path(home.partition("=")[2].strip()).parent)
