"""Which rows can be trusted here: the known fix makes the tests pass that should, in the sandbox that episodes will have."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lit_agents.environment.swe.grading import graded
from lit_agents.environment.swe.packages import is_test
from lit_agents.environment.swe.problem import HELD_OUT, Problem, Requirements, save_tree
from lit_agents.environment.swe.repositories import patched, repository
from lit_agents.environment.swe.results import Ran, cut, reason, run_tests, steady
from lit_agents.environment.swe.rows import Row
from lit_agents.environment.swe.sandbox.base import Sandbox
from lit_agents.environment.swe.sandbox.terms import Runtime, SandboxError
from lit_agents.environment.swe.specs import spec_of
from lit_agents.environment.swe.tree import Tree, changed, packed
from lit_agents.errors import BadInput
from lit_agents.whole_files import write_whole

LONGEST = 1800.0
"""Seconds that one run of a row's test files may take."""
TOUCHED = re.compile(r"^\+\+\+ b/(.+?)\s*$", re.MULTILINE)
TOOK = re.compile(r" in \d+(\.\d+)?s\b.*")
"""At the end of pytest's last line: no two calls say the same."""
CASE = re.compile(r"^[ +]\[case ([^\]]+)\]", re.MULTILINE)


def verified(
    row: Row,
    folder: Path,
    sources: Mapping[str, list[str]],
    sandbox: Sandbox,
    runtime: Callable[[Requirements, Tree], Runtime],
) -> Problem:
    """A problem made of a row; its ``pass_to_pass`` are those that hold here.

    Args:
        folder: where trees, clones and problems are kept.
        sources: by ``owner/name``, or under ``*`` for all others, where its files come from.
        sandbox: in which its tests are run.
        runtime: what they need.

    Raises:
        BadInput: why it cannot be used.
    """
    named = sources.get(row.repo) or sources.get("*", [])
    tree = repository(row.repo, row.base_commit, named, folder, lambda: sandbox.image_files(row.image))
    tests, change = patched(tree, row.test_patch), patched(tree, row.patch)
    start = change if row.is_bug else {}
    fix = {path: tree.get(path) for path in change} if row.is_bug else change
    begun = changed(tree, start)
    if clash := sorted(set(tests) & set(fix)):
        raise BadInput(row.instance_id, f"both patches change {clash[0]}.", "Leave it out.")
    spec = spec_of(row.repo, row.version)
    needs = Requirements(row.image, spec.python, spec.install, spec.variables, key=f"{row.repo} {row.version}")
    command = _command(spec.test, row)
    try:
        sandbox.open(runtime(needs, tree))
        before = _twice(sandbox, packed(changed(begun, tests)), command)
        repaired = changed(changed(begun, graded(fix, begun, tests)), tests)  # as an agent's would be
        after = _twice(sandbox, packed(repaired), command)
    except SandboxError as error:
        raise BadInput(row.instance_id, f"its sandbox broke ({error}).", "Try again.") from error
    wanted = sorted(set(map(cut, row.fail_to_pass)))
    flipped = [test for test in wanted if test in after.always and test not in before.ever]
    if flipped != wanted or not wanted:
        said = TOOK.sub("", reason(after.last.done.output))
        why = f"{len(flipped)} of {len(wanted)} tests fail without the fix and pass with it ({said})."
        raise BadInput(row.instance_id, why, "Leave it out, or use its image.")
    kept = sorted(set(map(cut, row.pass_to_pass)) & before.always & after.always)
    return Problem(
        id=row.instance_id,
        repo=row.repo,
        statements=(row.problem_statement,),
        tree=save_tree(folder / "trees", tree),
        start=start,
        fix=fix,
        tests=tests,
        fail_to_pass=tuple(wanted),
        pass_to_pass=tuple(kept),
        command=command,
        seconds=after.last.done.seconds,
        requirements=needs,
        labels={"repo": row.repo, "files": str(len(fix)), "failing": str(len(wanted)), HELD_OUT: str(row.held_out)},
        made_of=_digest(row),
    )


@dataclass(frozen=True)
class _Twice:
    """Two runs of the same tests on the same code: a test that draws lots proves nothing.

    Attributes:
        always: what passed in both.
        ever: what passed in either.
    """

    always: frozenset[str]
    ever: frozenset[str]
    last: Ran


def _twice(sandbox: Sandbox, archive: bytes, command: str) -> _Twice:
    runs = []
    for _ in range(2):
        sandbox.reset(archive)
        runs.append(run_tests(sandbox, command, LONGEST))
    first, second = (run.passed for run in runs)
    return _Twice(steady(first & second, first, second), first | second, runs[1])


def _digest(row: Row) -> str:
    """Of all that a row says; what set it was found in is not of the row."""
    return hashlib.sha256(json.dumps(asdict(row) | {"held_out": False}, sort_keys=True).encode()).hexdigest()


def verify_all(
    rows: Sequence[Row],
    folder: Path,
    sources: Mapping[str, list[str]],
    sandbox: Sandbox,
    runtime: Callable[[Requirements, Tree], Runtime],
) -> dict[str, str]:
    """By row, why it cannot be used here; empty if it can. See `verified` for the arguments.

    Those that can are remembered while the row says the same; the others are tried again the next time, since the network or a
    sandbox may have been why. What has once been in a set for tests stays held out, whatever other set has it, too.
    """
    home = folder / "rows"
    home.mkdir(parents=True, exist_ok=True)
    verdicts, held_out = dict[str, str](), _held_out(home, rows)
    for row in rows:
        path = home / f"{row.instance_id}.json"
        verdicts[row.instance_id] = ""
        known = Problem.load(path) if path.is_file() else None
        found = known if known and known.made_of == _digest(row) else None
        try:
            found = found or verified(row, folder, sources, sandbox, runtime)
        except BadInput as error:
            verdicts[row.instance_id] = f"{error.where}: {error.reason}"
            path.unlink(missing_ok=True)
            continue
        found = replace(found, labels={**found.labels, HELD_OUT: str(row.instance_id in held_out)})
        if found != known:
            found.save(path)
    return verdicts


def _held_out(home: Path, rows: Sequence[Row]) -> set[str]:
    """Names of all rows that a set for tests has ever had, whether they could be used or not."""
    path = home / "held_out.txt"
    known = set(path.read_text(encoding="utf-8").split()) if path.is_file() else set[str]()
    found = known | {row.instance_id for row in rows if row.held_out}
    if found != known:
        write_whole(path, "".join(f"{name}\n" for name in sorted(found)))
    return found


def _command(test: str, row: Row) -> str:
    """The tests of the files that the test patch touches, or without one of those that are named; of mypy's, the cases."""
    touched = [path for path in TOUCHED.findall(row.test_patch) if is_test(path) or path.endswith((".py", ".test"))]
    if any(path.endswith(".test") for path in touched):
        return f"{test} -k {shlex.quote(' or '.join(dict.fromkeys(CASE.findall(row.test_patch))))}"
    named = [test_id.partition("::")[0] for test_id in (*row.fail_to_pass, *row.pass_to_pass) if "::" in test_id]
    files = [path for path in touched if path.endswith(".py")] or sorted(set(named))
    return f"{test} {shlex.join(files)}"
