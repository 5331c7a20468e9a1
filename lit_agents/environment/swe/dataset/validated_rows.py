"""Which rows of a set can be used here: tried on all cores, remembered, and summed up."""

from __future__ import annotations

import sys
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Lock

from lit_agents.environment.swe.dataset.rows import Row
from lit_agents.environment.swe.dataset.validate import How, digest_of, verified
from lit_agents.environment.swe.pytest_runner import cut
from lit_agents.environment.swe.task import HELD_OUT, Problem
from lit_agents.errors import BadInput, printable
from lit_agents.sandbox.base import Sandbox
from lit_agents.system.files import name_of_file

SHOWN = 3
"""Rows that are named as examples."""


@dataclass(frozen=True)
class Verdict:
    """Whether a row can be used here.

    Attributes:
        reason: why not; empty if it can.
        named, kept: how many PASS_TO_PASS tests it names, and how many of them hold here.
    """

    row: str
    reason: str
    named: int = 0
    kept: int = 0

    def in_words(self) -> str:
        """On one line."""
        said = self.reason or f"can be used; {self.kept} of {self.named} PASS_TO_PASS tests hold here"
        return printable(f"{self.row}: {said}")


def verify_all(rows: Sequence[Row], how: How, held_out: Container[str]) -> list[Verdict]:
    """One verdict per row, in their order; each is also said when it is found, on the error output.

    Rows that can be used are remembered while they say the same; the others are tried again the next time, since the network
    or a sandbox may have been why.

    Args:
        held_out: names of rows that nobody may train on.
    """
    (how.folder / "rows").mkdir(parents=True, exist_ok=True)
    said, free, lock = dict[int, Verdict](), SimpleQueue[Sandbox](), Lock()
    first = {row.instance_id: number for number, row in reversed(list(enumerate(rows)))}

    def one(number: int) -> None:
        row, sandbox = rows[number], free.get()
        try:
            if first[row.instance_id] != number:
                verdict = Verdict(row.instance_id, "another row before it has the same instance_id.")
            else:
                verdict = _verdict(row, how, sandbox, row.instance_id in held_out)
        finally:
            free.put(sandbox)
        with lock:
            said[number] = verdict
            refused = sum(bool(each.reason) for each in said.values())
            done = f"{len(said)} of {len(rows)}, {refused} refused"
            print(f"[{done}] {verdict.in_words()}", file=sys.stderr, flush=True)

    with ExitStack() as opened, ThreadPoolExecutor(how.workers) as threads:
        for _ in range(how.workers):
            free.put(opened.enter_context(how.sandbox()))
        waiting = [threads.submit(one, number) for number in range(len(rows))]
        try:
            for each in waiting:
                each.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return [said[number] for number in range(len(rows))]


def _verdict(row: Row, how: How, sandbox: Sandbox, held_out: bool) -> Verdict:
    path = how.folder / "rows" / f"{name_of_file(row.instance_id)}.json"
    try:
        known = Problem.load(path) if path.is_file() else None
        found = known if known and known.made_of == digest_of(row) else verified(row, how, sandbox)
    except BadInput as error:
        path.unlink(missing_ok=True)
        where = "" if error.where == row.instance_id else f"{error.where}: "
        return Verdict(row.instance_id, printable(f"{where}{error.reason}"))
    found = replace(found, labels={**found.labels, HELD_OUT: str(held_out)})
    if found != known:
        found.save(path)
    return Verdict(row.instance_id, "", len(set(map(cut, row.pass_to_pass))), len(found.pass_to_pass))


def summary(source: str, verdicts: Sequence[Verdict]) -> str:
    """How many rows can be used, what they lost, and why the others cannot, equal reasons together."""
    good = [verdict for verdict in verdicts if not verdict.reason]
    lines = [f"{source}: {len(good)} of {len(verdicts)} rows can be used here"]
    short = sorted((verdict for verdict in good if verdict.kept < verdict.named), key=lambda v: v.kept - v.named)
    if good:
        named, kept = sum(verdict.named for verdict in good), sum(verdict.kept for verdict in good)
        text = f"  {named - kept} of their {named} PASS_TO_PASS tests do not hold here and do not count"
        worst = [f"{verdict.row} {verdict.named - verdict.kept} of {verdict.named}" for verdict in short[:SHOWN]]
        lines.append(text + (f", in {len(short)} rows: {_listed(worst, len(short))}" if short else ""))
    reasons: dict[str, list[str]] = {}
    for verdict in verdicts:
        if verdict.reason:
            reasons.setdefault(verdict.reason, []).append(verdict.row)
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        lines.append(f"  {len(names)} refused: {reason} {_listed(names[:SHOWN], len(names))}")
    return "\n".join(map(_one_line, lines))


def _listed(some: Sequence[str], count: int) -> str:
    return f"({', '.join(some)}{f' and {count - len(some)} more' if count > len(some) else ''})"


def _one_line(line: str) -> str:
    return line[: len(line) - len(line.lstrip())] + printable(line)
