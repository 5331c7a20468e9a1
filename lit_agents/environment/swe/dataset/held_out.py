"""Which rows nobody may train on: what the user says, or else the test sets that are known by their full names.

What a set for tests has once had stays held out, whatever other set has it, too, until the user takes it back for that set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from lit_agents.environment.swe.dataset.rows import HUB, Row, dataset_of, part_of
from lit_agents.errors import BadInput
from lit_agents.system.files import write_whole

TEST_SETS = (
    *(f"SWE-bench/SWE-bench{name}" for name in ("", "_Lite", "_Verified", "_Multimodal", "_Multilingual")),
    *(f"princeton-nlp/SWE-bench{name}" for name in ("_oracle", "_Lite_oracle", "_bm25_13K", "_bm25_27K", "_bm25_40K")),
    *(f"princeton-nlp/SWE-bench{name}" for name in ("_bm25_50k_llama", "_Lite_bm25_13K", "_Lite_bm25_27K")),
    "ScaleAI/SWE-bench_Pro",
    "SWE-bench-Live/SWE-bench-Live",
    "SWE-bench-Live/MultiLang",
    "ByteDance-Seed/Multi-SWE-bench",
    "ByteDance-Seed/Multi-SWE-bench_mini",
    "ByteDance-Seed/Multi-SWE-bench-flash",
    "AmazonScience/SWE-PolyBench",
    "AmazonScience/SWE-PolyBench_500",
    "AmazonScience/SWE-PolyBench_Verified",
)
"""As the hub spells them. Copies count by the name alone, whoever owns them (``princeton-nlp/SWE-bench_Lite``, a file
``swebench_lite.jsonl``); SWE-Gym-Lite and R2E-Gym-Lite are training sets."""
TRAINING_PARTS = frozenset({"train", "dev", "validation"})
"""Parts of a test set that results are not reported on."""
SUSPECT = re.compile(r"(^|[-_./ ])(tests?|verified|evals?|held[-_]?out)([-_./ ]|$)")
"""In a name that is not known: nobody but the user can say what it is."""


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_KNOWN = frozenset(_plain(name.partition("/")[2]) for name in TEST_SETS)


def is_held_out(source: str, path: Path, said: bool | None) -> bool:
    """Whether the rows of one file of a source may be tested on only.

    Args:
        said: what the user says of the source, if anything.

    Raises:
        BadInput: the user says nothing, and the name may be that of a test set, which is not known.
    """
    if said is not None:
        return said
    name, part = dataset_of(source), part_of(source, path)
    if known_test_set(source):
        return part not in TRAINING_PARTS
    if SUSPECT.search(f"{name.rpartition('/')[2]}/{part}".lower()):
        reason = "its name may be that of a test set, and it is none that is known here."
        raise BadInput(source, reason, "Say --held_out true (its rows serve the split test alone) or --held_out false.")
    return False


def known_test_set(source: str) -> bool:
    """Whether a source is a test set, or a copy of one, by its full name."""
    name = dataset_of(source).rpartition("/")[2]
    return not {_plain(name), _plain(re.sub(r"[-_.]test$", "", name.lower()))}.isdisjoint(_KNOWN)


class HeldOut:
    """By row, the sources that hold it out: one file, which all calls share.

    Args:
        path: of the file; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def updated(self, source: str, rows: Sequence[Row], undo: bool) -> dict[str, list[str]]:
        """Note what a source says of its rows; the sources that hold each row of all out.

        Args:
            undo: what this source has held out before is so no more, unless a row says it.

        Raises:
            BadInput: the file is not as it was written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        key = source.lower() if source.startswith(HUB) else str(Path(source).expanduser().resolve())
        with FileLock(f"{self._path}.lock"):
            before = self._read()
            after = {name: list(sources) for name, sources in before.items()}
            for row in rows:
                sources = after.setdefault(row.instance_id, [])
                if row.held_out and key not in sources:
                    sources.append(key)
                elif undo and not row.held_out and key in sources:
                    sources.remove(key)
            after = {name: sources for name, sources in after.items() if sources}
            if after != before:
                write_whole(self._path, json.dumps(after, indent=1, sort_keys=True) + "\n")
        return after

    def _read(self) -> dict[str, list[str]]:
        if not self._path.is_file():
            return {}
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(name): [str(source) for source in sources] for name, sources in found.items()}
        except (ValueError, AttributeError, TypeError) as error:
            way_out = "Repair it; if you delete it, verify your test sets again before you train."
            raise BadInput(str(self._path), f"it is not as it was written ({error}).", way_out) from error


def in_words(source: str, rows: Sequence[Row], said: bool | None, holders: dict[str, list[str]]) -> str:
    """What was decided about the rows of a source, why, and how that is undone."""
    held = sum(row.held_out for row in rows)
    if said is not None:
        text = f"{'held out (they serve the split test alone)' if said else 'not held out'}, as --held_out says"
    elif held:
        name = dataset_of(source)
        text = f"{held} of {len(rows)} held out (they serve the split test alone), because {name} is a test set; "
        text += "--held_out false undoes it"
    else:
        text = "not held out, because it is no test set that is known here; --held_out true holds them out"
    others = {row.instance_id for row in rows if not row.held_out and row.instance_id in holders}
    if others:
        names = ", ".join(sorted({name for row in others for name in holders[row]}))
        text += f"; {len(others)} of them still are, because they are in {names}"
    return text
