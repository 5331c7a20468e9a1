"""Where a row's files come from: its image, a git URL or folder at its commit, a source archive, or a plain folder.

Whatever it is, only files are taken: no history, remote or tag from which the fix could be read.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from lit_agents.environment.swe.packages import Package, source_of
from lit_agents.environment.swe.sandbox.terms import SandboxError
from lit_agents.environment.swe.tree import (
    Change,
    File,
    Tree,
    changes,
    is_source,
    read_folder,
    unpacked,
    write_folder,
)
from lit_agents.errors import BadInput

IMAGE, SDIST = "image", "sdist:"


def repository(
    repo: str, commit: str, sources: Sequence[str], folder: Path, image_files: Callable[[], bytes]
) -> dict[str, File]:
    """The files at a commit, from the first of the sources that has them.

    Args:
        repo: ``owner/name``.
        sources: each ``image``, a URL of git, a folder with a git repository, ``sdist:NAME==VERSION``, or a plain folder;
            ``{repo}`` in them is ``repo``. An image, archive or plain folder is taken as it is, whatever the commit.
        folder: where clones and archives are kept.
        image_files: what the row's image holds, as an archive with one folder at its top.

    Raises:
        BadInput: none has them; what each says.
    """
    said = []
    for source in sources:
        named = source.replace("{repo}", repo)
        try:
            return _of_image(image_files()) if source == IMAGE else _files(named, commit, folder)
        except (BadInput, SandboxError, OSError, subprocess.CalledProcessError) as error:
            output = str(getattr(error, "output", "") or "")
            said.append(f"{named}: {output.strip().splitlines()[-1] if output.strip() else error}")
    reason = f"its files cannot be had ({'; '.join(said) or 'no source is configured'})."
    raise BadInput(repo, reason, "Name a source: image, a URL of git, a folder, or sdist:NAME==VERSION.")


def patched(tree: Tree, patch: str) -> Change:
    """What a unified diff changes.

    Raises:
        BadInput: it does not apply.
    """
    if not patch.strip():
        return {}
    with tempfile.TemporaryDirectory(prefix="lit_agents-patch-") as name:
        write_folder(tree, Path(name))
        command = ["git", "apply", "--whitespace=nowarn", "-"]
        bare = {"PATH": os.environ.get("PATH", ""), "GIT_CEILING_DIRECTORIES": str(Path(name).parent), "HOME": name}
        done = subprocess.run(command, cwd=name, env=bare, input=patch.encode(), capture_output=True)
        if done.returncode:
            raise BadInput(
                "patch",
                f"it does not apply ({' '.join(done.stderr.decode().split())[:200]}).",
                "Give the row's own commit.",
            )
        before = {path: file for path, file in tree.items() if is_source(path)}
        return changes(before, read_folder(Path(name)))


def _of_image(archive: bytes) -> dict[str, File]:
    return {path.partition("/")[2]: file for path, file in unpacked(archive).items()}


def _files(source: str, commit: str, folder: Path) -> dict[str, File]:
    if source.startswith(SDIST):
        return source_of(Package.parsed(source.removeprefix(SDIST)), folder / "archives")
    is_url = "://" in source or source.startswith("git@")
    path = Path(source).expanduser()
    if not is_url and not path.is_dir():
        raise BadInput(source, "there is no such folder.", "Name one.")
    if not is_url and not ((path / ".git").exists() or (path / "HEAD").is_file()):
        return read_folder(path)
    if is_url:
        path = _clone(source, folder / "git")
    with tempfile.TemporaryDirectory(prefix="lit_agents-checkout-") as name:
        # a clone of one's own, because git archive leaves out what is marked export-ignore
        _git("clone", "--quiet", "--shared", "--no-checkout", str(path), name)
        _git("-C", name, "checkout", "--quiet", "--detach", commit)
        if is_url and Path(name, ".gitmodules").is_file():
            _git("-C", name, "submodule", "--quiet", "update", "--init", "--depth", "1")
        return read_folder(Path(name))


def _clone(url: str, folder: Path) -> Path:
    """All commits of a repository, kept and brought up to date when asked for again."""
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.git"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_dir():
            beside = path.with_suffix(".half")
            subprocess.run(["rm", "-rf", str(beside)], check=True)
            _git("clone", "--quiet", "--bare", url, str(beside))
            beside.rename(path)
    return path


def _git(*arguments: str) -> None:
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}
    command = ["git", "-c", "safe.directory=*", "-c", "advice.detachedHead=false", *arguments]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
