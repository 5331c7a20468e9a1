"""Rows of SWE-Gym's schema, which SWE-bench and SWE-smith share in its core: from a file, or from the hub."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_agents.errors import BadInput
from lit_agents.system.files import json_lines

HUB = "hub:"
SHARD = re.compile(r"-\d+-of-\d+$")
"""At the end of the name of one of several files that hold a part of a dataset."""
IMAGES = "xingyaoww"
"""Who publishes SWE-Gym's images."""


@dataclass(frozen=True)
class Row:
    """One task of a dataset, as it is there. Hints and later history are not for anybody.

    Attributes:
        fail_to_pass, pass_to_pass: test ids, cut at their first space.
        image: name of the container image that is published for it.
        is_bug: the patch is the bug, not the fix, as in SWE-smith.
        held_out: it is of a set that nobody may train on.
    """

    instance_id: str
    repo: str
    version: str
    base_commit: str
    problem_statement: str
    patch: str
    test_patch: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    image: str
    is_bug: bool = False
    held_out: bool = False


def read_rows(
    source: str, images: str = IMAGES, held_out: Callable[[str, Path], bool] = lambda source, path: False
) -> list[Row]:
    """All rows of a ``.jsonl``, ``.json`` or ``.parquet`` file, or of a dataset of the hub.

    Args:
        source: the file, or ``hub:SWE-Gym/SWE-Gym``, or one part of a dataset (``hub:SWE-bench/SWE-bench:dev``).
        images: who publishes the images of rows that name none; empty for nobody.
        held_out: whether the rows of one of its files may be tested on only; it is asked before a file is read.

    Raises:
        BadInput: no such file or dataset, or rows of another kind.
    """
    paths = _from_hub(source) if source.startswith(HUB) else [Path(source).expanduser()]
    rows: list[Row] = []
    for path, held in [(path, held_out(source, path)) for path in paths]:
        for number, fields in enumerate(_fields(path, source), start=1):
            try:
                rows.append(_row(fields, images, held))
            except (KeyError, TypeError, ValueError) as error:
                reason = f"row {number} has not SWE-Gym's fields ({type(error).__name__}: {error})."
                raise BadInput(
                    str(path), reason, "Give rows with instance_id, repo, base_commit, patch and so on."
                ) from error
    return rows


def dataset_of(source: str) -> str:
    """The name of a dataset: ``owner/name`` on the hub, a file's without its ending; folders may have any name."""
    if source.startswith(HUB):
        return source.removeprefix(HUB).partition(":")[0]
    return SHARD.sub("", Path(source).stem)


def part_of(source: str, path: Path) -> str:
    """The part (``train``, ``dev``, ``test``) that a file of the hub belongs to, as its name says; a file here has none."""
    if not source.startswith(HUB):
        return ""
    return path.parent.name if path.stem.isdigit() else SHARD.sub("", path.stem)


def _row(fields: Mapping[str, Any], images: str, held_out: bool) -> Row:
    for required in ("instance_id", "repo"):
        if not fields[required]:
            raise ValueError(f"{required} is empty")
    name = str(fields["instance_id"])
    # an image's name may not hold two underscores in a row, and each publisher writes them in his own way
    joint = "_1776_" if images == "swebench" else "_s_"
    published = f"{images}/sweb.eval.x86_64.{name.lower().replace('__', joint)}" if images else ""
    is_bug = str(fields["repo"]).startswith("swesmith/")
    return Row(
        instance_id=name,
        repo=str(fields["repo"]),
        version=str(fields.get("version") or ""),
        base_commit="HEAD" if is_bug else str(fields["base_commit"]),  # a mirror of one commit
        problem_statement=str(fields["problem_statement"] or "").encode(errors="replace").decode(),
        patch=str(fields["patch"] or ""),
        test_patch=str(fields.get("test_patch") or ""),
        fail_to_pass=_ids(fields["FAIL_TO_PASS"]),
        pass_to_pass=_ids(fields["PASS_TO_PASS"]),
        image=str(fields.get("image") or fields.get("image_name") or published),
        is_bug=is_bug,
        held_out=held_out,
    )


def _ids(value: Any) -> tuple[str, ...]:
    """A list, or one that is written as JSON; null and an empty text are an empty list."""
    found = json.loads(value or "[]") if isinstance(value, str) else list(value or ())
    if not all(isinstance(test, str) for test in found):
        raise TypeError("test ids that are no text")
    return tuple(found)


def _fields(path: Path, source: str) -> Iterable[Mapping[str, Any]]:
    if not path.is_file():
        raise BadInput(source, "there is no such file.", f"Name a .jsonl, .json or .parquet file, or {HUB}OWNER/NAME.")
    try:
        if path.suffix == ".parquet":
            table = importlib.import_module("pyarrow.parquet").read_table(path)
            return [dict(row) for row in table.to_pylist()]
        if path.suffix == ".json":
            return list(json.loads(path.read_text(encoding="utf-8-sig")))
        return json_lines(path)
    except ModuleNotFoundError as error:
        raise BadInput(source, "reading parquet needs pyarrow.", "Run: pip install pyarrow") from error
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise BadInput(source, f"it cannot be read ({error}).", "Give a .jsonl, .json or .parquet file.") from error


def _from_hub(source: str) -> list[Path]:
    """The parquet files of a dataset, or of one part of it."""
    name, _, part = source.removeprefix(HUB).partition(":")
    hub = importlib.import_module("huggingface_hub")
    try:
        folder = Path(hub.snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet"))
    except Exception as error:  # whatever the hub and the way to it have
        reason = f"it cannot be had from the hub ({type(error).__name__}: {error})."
        raise BadInput(source, reason, "Check the name and the network, or download it and name the file.") from error
    paths = sorted(folder.rglob("*.parquet"))
    if not paths:
        raise BadInput(source, "it has no parquet files.", "Download it as a .jsonl file and name that.")
    if found := [path for path in paths if part in ("", part_of(source, path))]:
        return found
    parts = ", ".join(sorted({part_of(source, path) for path in paths}))
    raise BadInput(source, f"it has no part {part!r}.", f"Name one of {parts}, or none for all of it.")
