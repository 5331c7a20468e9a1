"""The last turn of a repair: what was submitted is tested on a fresh copy, and becomes the signals that rewards are made of."""

from __future__ import annotations

import tarfile

from lit_agents.environment.base import Transition
from lit_agents.environment.swe.file_tree import Tree, changes, unpacked
from lit_agents.environment.swe.generated_tests import TestWriter, judged_by
from lit_agents.environment.swe.grading import does_something, graded, judged
from lit_agents.environment.swe.task import Problem
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.types import Unreadable


def submitted(problem: Problem, before: Tree, sandbox: Sandbox, writer: TestWriter | None) -> Transition:
    """Judge what is in the sandbox, which is reset for it; the signals are described in `SweGym`.

    Args:
        before: the repository as the agent found it.
        writer: of more tests, if there are to be any.

    Raises:
        SandboxError: the repository cannot be tested, whatever the agent did.
    """
    good, bad = len(problem.pass_to_pass), len(problem.fail_to_pass)
    passed_before = good / (good + bad)
    try:
        change = changes(before, unpacked(sandbox.get()))
    except (Unreadable, tarfile.ReadError) as error:  # whoever made the work folder unreadable has repaired nothing
        nothing = {"resolved": False, "passed": 0.0, "repaired": 0.0, "kept": 0.0, "changed": False}
        signals = {**nothing, "passed_before": passed_before, "tests_ended": False, "cheated": False}
        return Transition(f"It cannot be read: {error}", 0.0, terminated=True, lost=True, signals=signals)
    counted = graded(change, before, problem.tests)
    found = judged(problem, before, counted, sandbox)
    signals = {
        "resolved": found.resolved,
        "passed": found.passed,
        "passed_before": passed_before,
        "repaired": found.repaired,
        "kept": found.kept,
        "changed": does_something(counted, before),
        "tests_ended": found.ended,
        "cheated": found.cheated,
    }
    if writer is not None and not found.cheated and (written := writer.write(problem, before, sandbox)):
        signals["written_passed"] = judged_by(written, before, counted, sandbox)
    said = "All tests pass." if found.resolved else "Some tests fail."
    said = "The tests do not say what the code does: nothing of it counts." if found.cheated else said
    score, lost = float(found.resolved), not found.resolved
    return Transition(said, score, terminated=True, won=found.resolved, lost=lost, signals=signals)
