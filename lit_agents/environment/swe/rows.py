"""Rows of SWE-Gym's schema, which SWE-bench and SWE-smith share in its core: from a file, or from the hub."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_agents.errors import BadInput

HUB = "hub:"
HELD_OUT = re.compile(r"(^|[-_./ ])(test|verified|lite|multimodal)([-_./ ]|$)")
"""In the name of a file or dataset: what results are reported on."""
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


def read_rows(source: str, images: str = IMAGES) -> list[Row]:
    """All rows of a ``.jsonl``, ``.json`` or ``.parquet`` file, or of a dataset of the hub (``hub:SWE-Gym/SWE-Gym``).

    Args:
        images: who publishes the images of rows that name none; empty for nobody.

    Raises:
        BadInput: no such file or dataset, or rows of another kind.
    """
    paths = _from_hub(source.removeprefix(HUB)) if source.startswith(HUB) else [Path(source).expanduser()]
    rows: list[Row] = []
    for path in paths:
        for number, fields in enumerate(_fields(path, source), start=1):
            try:
                rows.append(_row(fields, images, held_out(source, path)))
            except (KeyError, TypeError, ValueError) as error:
                reason = f"row {number} has not SWE-Gym's fields ({type(error).__name__}: {error})."
                raise BadInput(
                    str(path), reason, "Give rows with instance_id, repo, base_commit, patch and so on."
                ) from error
    return rows


def held_out(source: str, path: Path) -> bool:
    """Whether a file, or the dataset it is of, is called a test set; folders may have any name."""
    name = f"{source}/{path.name}" if source.startswith(HUB) else path.name
    return bool(HELD_OUT.search(name.lower()))


def _row(fields: Mapping[str, Any], images: str, held_out: bool) -> Row:
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
        problem_statement=str(fields["problem_statement"]),
        patch=str(fields["patch"]),
        test_patch=str(fields.get("test_patch") or ""),
        fail_to_pass=_ids(fields["FAIL_TO_PASS"]),
        pass_to_pass=_ids(fields["PASS_TO_PASS"]),
        image=str(fields.get("image") or fields.get("image_name") or published),
        is_bug=is_bug,
        held_out=held_out,
    )


def _ids(value: Any) -> tuple[str, ...]:
    """A list, or one that is written as JSON."""
    found = json.loads(value) if isinstance(value, str) else list(value)
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
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ModuleNotFoundError as error:
        raise BadInput(source, "reading parquet needs pyarrow.", "Run: pip install pyarrow") from error
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise BadInput(source, f"it cannot be read ({error}).", "Give a .jsonl, .json or .parquet file.") from error


def _from_hub(name: str) -> list[Path]:
    """The dataset's parquet files."""
    hub = importlib.import_module("huggingface_hub")
    try:
        folder = hub.snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet")
    except Exception as error:  # whatever the hub and the way to it have
        reason = f"it cannot be had from the hub ({type(error).__name__}: {error})."
        raise BadInput(
            f"{HUB}{name}", reason, "Check the name and the network, or download it and name the file."
        ) from error
    if paths := sorted(Path(folder).rglob("*.parquet")):
        return paths
    raise BadInput(f"{HUB}{name}", "it has no parquet files.", "Download it as a .jsonl file and name that.")
