"""The official games of ALFWorld: archives unpacked into a folder, and an index of what is in it.

A folder holds ``SPLIT/TASK/TRIAL/game.tw-pddl``, most with ``traj_data.json`` beside it (human goal sentences, and what the
handcoded expert reads), and ``index.jsonl``. Games appear whole: archives are unpacked beside the folder, which is replaced at
the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from lit_agents.environment.alfworld.game import goal_of, read_game
from lit_agents.errors import BadInput
from lit_agents.system.files import json_lines, made_folder, write_whole

TYPES = {
    "pick_and_place_simple": "pick",
    "look_at_obj_in_light": "look",
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
    "pick_two_obj_and_place": "two",
}
"""Task types as the games name them, and as they are named here."""
SPLITS = ("train", "valid_train", "valid_seen", "valid_unseen")
GAME, TRAJECTORY, INDEX = "game.tw-pddl", "traj_data.json", "index.jsonl"
MEMBER = re.compile(rf"(?:^|/)({'|'.join(SPLITS)})/([\w-]+)/([\w-]+)/({re.escape(GAME)}|{re.escape(TRAJECTORY)})$")
"""What is taken out of an archive, and the only names that a file of it can get."""
LARGEST = 4_000_000  # bytes of a file; games have 100 kB, annotations twice as much
WAY_OUT = "Get it again, from ALFWorld's releases or from where you had it."


@dataclass(frozen=True)
class Row:
    """What the index says of one game."""

    split: str
    name: str
    """``TASK/TRIAL``."""
    sha256: str
    """Of the ``game.tw-pddl``."""
    kind: str
    """A value of `TYPES`."""
    scene: str
    steps: int
    """Length of the stored walkthrough."""
    goal: str
    fault: str = ""
    """Why it is left out, if it is."""


def unpack(archives: Sequence[Path], folder: Path) -> list[Row]:
    """Put the games of some archives (tar with any compression, or zip) into a folder, and index all that are there then.

    Raises:
        BadInput: an archive is none or is cut off, or there is no game in all of them together; the folder is as before.
    """
    made_folder("folder", folder.parent)
    folder = folder.resolve()  # it may be a link to another disk
    with FileLock(f"{folder}.lock"), tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as scratch:
        whole = Path(scratch) / "games"
        if folder.is_dir():
            shutil.copytree(folder, whole, copy_function=_linked)
        found = 0
        for archive in archives:
            found += _unpack(archive, whole)
        if not found:
            reason = f"it holds no {' and no '.join((GAME, TRAJECTORY))} below {', '.join(SPLITS)}."
            raise BadInput(str(archives[0]), reason, "Name ALFWorld's json_2.1.3_tw-pddl.zip, or an archive like it.")
        if not (games := sorted(whole.glob(f"*/*/*/{GAME}"))):
            reason = f"it holds {TRAJECTORY} alone, and there is no {GAME} yet."
            raise BadInput(str(archives[0]), reason, "Name ALFWorld's json_2.1.3_tw-pddl.zip too, or first.")
        rows = [row_of(path, whole) for path in games]
        write_whole(whole / INDEX, "".join(json.dumps(asdict(row)) + "\n" for row in rows))
        if folder.is_dir():
            folder.rename(Path(scratch) / "before")
        whole.rename(folder)
    return rows


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copy2(source, target)


def _unpack(archive: Path, folder: Path) -> int:
    count = 0
    try:
        with _members(archive) as members:
            for name, file in members:
                match = MEMBER.search(name)
                if match is None:
                    continue
                path = folder / Path(*match.groups())
                path.parent.mkdir(parents=True, exist_ok=True)
                content = file.read(LARGEST + 1)
                if len(content) > LARGEST:
                    raise BadInput(str(archive), f"{name} has more than {LARGEST} bytes.", WAY_OUT)
                path.unlink(missing_ok=True)  # it may be a second name of a file in the folder that is replaced
                path.write_bytes(content)
                count += 1
    except BadInput:
        raise
    except Exception as error:  # each compression has errors of its own
        raise BadInput(str(archive), f"it cannot be unpacked ({type(error).__name__}: {error}).", WAY_OUT) from error
    return count


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """Names and contents of an archive's plain files."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield ((info.filename, zipped.open(info)) for info in zipped.infolist() if not info.is_dir())
        return
    with tarfile.open(archive, "r:*") as tar:
        yield ((info.name, file) for info in tar if info.isreg() and (file := tar.extractfile(info)) is not None)
        if tar.fileobj is None or tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:  # tarfile takes that for its end
            raise EOFError("it is cut off: the block of zeros at its end is not there")


def row_of(path: Path, folder: Path) -> Row:
    """What the index is to say of a game; one that cannot be played has its fault there."""
    split, task, trial, _ = path.relative_to(folder).parts
    kind, _, rest = task.partition("-")
    scene = rest.rpartition("-")[2]
    where = {"split": split, "name": f"{task}/{trial}", "kind": TYPES.get(kind, ""), "scene": scene}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        game = read_game(path)
    except BadInput as error:
        return Row(**where, sha256=digest, steps=0, goal="", fault=error.reason)
    fault = "" if kind in TYPES else f"its task type {kind} is none of {', '.join(TYPES)}."
    fault = fault or ("its thing has to be cut, which ALFWorld's own loader leaves out." if "Sliced" in task else "")
    fault = fault or ("" if goal_of(game) else "its grammar names no task.")
    return Row(**where, sha256=digest, steps=len(game["walkthrough"] or ()), goal=goal_of(game), fault=fault)


def read_index(folder: Path) -> list[Row]:
    """In the order of splits and names.

    Raises:
        BadInput: there is none, or it is not as it was written.
    """
    path = folder / INDEX
    command = "python -m lit_agents.tasks alfworld --source ARCHIVE"
    if not path.is_file():
        reason = "there are no ALFWorld games (no index.jsonl)."
        raise BadInput(
            str(folder), reason, f"Run: {command}; or generated games, which need no download: generated-all."
        )
    try:
        return [Row(**fields) for fields in json_lines(path)]
    except (ValueError, TypeError) as error:
        raise BadInput(
            str(path), f"it is not as it was written ({error}).", f"Delete {folder} and run: {command}"
        ) from error


def human_goals(game: Path) -> list[str]:
    """The sentences that people wrote for a game's task; none without its ``traj_data.json``."""
    try:
        content = json.loads(game.with_name(TRAJECTORY).read_text(encoding="utf-8"))
        return [" ".join(str(a["task_desc"]).split()).rstrip(".") for a in content["turk_annotations"]["anns"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
