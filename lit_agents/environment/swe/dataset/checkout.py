"""Where a row's files come from: its image, a git URL or folder at its commit, a source archive, or a plain folder.

Whatever it is, only files are taken: no history, remote or tag from which the fix could be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from lit_agents.environment.swe.file_tree import (
    Change,
    File,
    Tree,
    changes,
    is_source,
    read_folder,
    unpacked,
    write_folder,
)
from lit_agents.environment.swe.generate.pypi import Package, source_of
from lit_agents.errors import BadInput
from lit_agents.sandbox.types import SandboxError

IMAGE, SDIST = "image", "sdist:"
PATIENCE = 3600.0
"""Seconds."""


def repository(
    repo: str,
    commit: str,
    sources: Sequence[str],
    folder: Path,
    image_files: Callable[[], bytes],
    seconds: float = PATIENCE,
) -> dict[str, File]:
    """The files at a commit, from the first of the sources that has them.

    Args:
        repo: ``owner/name``.
        sources: each ``image``, a URL of git, a folder with a git repository, ``sdist:NAME==VERSION``, or a plain folder;
            ``{repo}`` in them is ``repo``. An image, archive or plain folder is taken as it is, whatever the commit.
        folder: where clones and archives are kept.
        image_files: what the row's image holds, as an archive with one folder at its top.
        seconds: that one command of git may take.

    Raises:
        BadInput: none has them; what each says.
    """
    said = []
    for source in sources:
        named = source.replace("{repo}", repo)
        try:
            return _of_image(image_files()) if source == IMAGE else _files(named, commit, folder, seconds)
        except (BadInput, SandboxError, OSError, subprocess.SubprocessError) as error:
            output = str(getattr(error, "output", "") or "").strip()
            late = f"out of time after {seconds:g} seconds " * isinstance(error, subprocess.TimeoutExpired)
            said.append(f"{named}: {late}{output or error}")
    reason = f"its files cannot be had ({'; '.join(said) or 'no source is configured'})."
    raise BadInput(repo, reason, "Name a source: image, a URL of git, a folder, or sdist:NAME==VERSION.")


def patched(tree: Tree, patch: str) -> Change:
    """What a unified diff changes.

    Raises:
        BadInput: it does not apply.
    """
    if not patch.strip():
        return {}
    patch += "" if patch.endswith("\n") else "\n"  # or git calls it corrupt
    with tempfile.TemporaryDirectory(prefix="lit_agents-patch-") as name:
        write_folder(tree, Path(name))
        command = ["git", "apply", "--whitespace=nowarn", "-"]
        bare = {"PATH": os.environ.get("PATH", ""), "GIT_CEILING_DIRECTORIES": str(Path(name).parent), "HOME": name}
        done = subprocess.run(
            command, cwd=name, env=bare, input=patch.encode(errors="surrogatepass"), capture_output=True
        )
        if done.returncode:
            said = " ".join(done.stderr.decode(errors="replace").split())
            raise BadInput("patch", f"it does not apply ({said}).", "Give the row's own commit.")
        before = {path: file for path, file in tree.items() if is_source(path)}
        return changes(before, read_folder(Path(name)))


def _of_image(archive: bytes) -> dict[str, File]:
    return {path.partition("/")[2]: file for path, file in unpacked(archive).items()}


def _files(source: str, commit: str, folder: Path, seconds: float) -> dict[str, File]:
    if source.startswith(SDIST):
        return source_of(Package.parsed(source.removeprefix(SDIST)), folder / "archives")
    is_url = "://" in source or source.startswith("git@")
    path = Path(source).expanduser()
    if not is_url and not path.is_dir():
        raise BadInput(source, "there is no such folder.", "Name one.")
    if not is_url and not ((path / ".git").exists() or (path / "HEAD").is_file()):
        return read_folder(path)
    if is_url:
        path = _clone(source, commit, folder / "git", seconds)
    with tempfile.TemporaryDirectory(prefix="lit_agents-checkout-") as name:
        # a clone of one's own, because git archive leaves out what is marked export-ignore
        _git("clone", "--quiet", "--shared", "--no-checkout", str(path), name, seconds=seconds)
        _git("-C", name, "checkout", "--quiet", "--detach", commit, seconds=seconds)
        if is_url and Path(name, ".gitmodules").is_file():
            _git("-C", name, "submodule", "--quiet", "update", "--init", "--depth", "1", seconds=seconds)
        return read_folder(Path(name))


def _clone(url: str, commit: str, folder: Path, seconds: float) -> Path:
    """All branches of a repository, kept; brought up to date where a commit is missing, which may be in no branch."""
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_dir():
            beside = path.with_suffix(".half")
            shutil.rmtree(beside, ignore_errors=True)
            _git("clone", "--quiet", "--bare", url, str(beside), seconds=seconds)
            beside.rename(path)
        elif not _has(path, commit):
            _git("-C", str(path), "fetch", "--quiet", "origin", "+refs/heads/*:refs/heads/*", seconds=seconds)
        if not _has(path, commit):
            _git("-C", str(path), "fetch", "--quiet", "origin", f"+{commit}:refs/kept/{commit}", seconds=seconds)
    return path


def _has(path: Path, commit: str) -> bool:
    try:
        _git("-C", str(path), "cat-file", "-e", f"{commit}^{{commit}}", seconds=60.0)
    except subprocess.CalledProcessError:
        return False
    return True


def _git(*arguments: str, seconds: float) -> None:
    """Run git with the user's settings, but on repositories of any owner, whom git would not trust otherwise.

    It takes that from a file alone: what is given to a command does not reach the one that reads the other repository.
    """
    own = os.environ.get("GIT_CONFIG_GLOBAL")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser())
    included = [own] if own is not None else [str(home / "git" / "config"), "~/.gitconfig"]
    lines = ["[safe]", "directory = *", "[advice]", "detachedHead = false"]
    lines += [
        line for path in included if path for line in ("[include]", f"path = {json.dumps(path, ensure_ascii=False)}")
    ]
    with tempfile.NamedTemporaryFile("w", prefix="lit_agents-git-", encoding="utf-8") as settings:
        settings.write("\n".join(lines) + "\n")
        settings.flush()
        environment = os.environ | {"GIT_CONFIG_GLOBAL": settings.name}
        environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}
        subprocess.run(
            ["git", *arguments],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
        )
