"""Measure: ``python -m lit_agents.evaluate --config C [--ckpt_path P] [--samples K] [--against Q] [--output FILE.json]``.

Plays the test tasks and prints the policy's row between its floor, random admissible actions, and its ceiling, the
environment's expert. Without a checkpoint the policy is the untouched model. ``--against`` compares it task by task with
another checkpoint, or with the numbers of an earlier evaluation if they were measured under the same conditions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lit_agents.errors import printable
from lit_agents.evaluation.console import print_table
from lit_agents.evaluation.evaluate import conditions_of
from lit_agents.evaluation.failures import refuse_broken
from lit_agents.evaluation.result import Result
from lit_agents.evaluation.stats.paired import compare
from lit_agents.run.callbacks.progress import Bar
from lit_agents.run.evaluation import EvaluateCLI, Evaluation
from lit_agents.system.command import quiet, run_command
from lit_agents.system.files import write_whole


@quiet()
def evaluate(args: Sequence[str] | None = None) -> dict[str, Result]:
    """The command as a function."""
    cli, bar = EvaluateCLI(args), Bar()
    cli.machine()
    wanted, data = Evaluation.of(cli), cli.datamodule
    try:
        cli.model.policy.check_context(data.limits.context)
        sets = data.preflight(cli.model.policy.chat, test=None)
        sets += data.other_splits("test", demonstrated=bool(cli.value("sft")))
        data.keep_apart(sets, **wanted.seen())
        wanted.comparable(conditions_of(data))
        data.on_progress = bar.show
        rows = wanted.measured()
    finally:
        bar.hide()
        data.close()
    results = {name: result for name, (result, _) in rows.items()}
    if wanted.earlier:
        results["against"] = wanted.earlier
    what = cli.value("ckpt_path") or cli.value("start_from") or "untouched model"
    title = f"{results['policy'].conditions.sentence}\npolicy: {what}"
    print_table(title + (f"\nagainst: {cli.value('against')}" if "against" in results else ""), results)
    for name, (_, episodes) in rows.items():
        if error := next((e.error for e in episodes if e.stop.is_failure), ""):
            print(printable(f"an error of {name}: ... {error[-300:]}"))
    for name in [name for name in ("policy", "against") if name in rows]:  # the others' failures are in the table
        refuse_broken(rows[name][1], data.schedule.max_failures, name, "measure again")
    content = {"policy": what, "success": {name: result.as_json() for name, result in results.items()}}
    if set(results["policy"].by_task) & set(results["against"].by_task if "against" in results else ()):
        found = compare(results["policy"].by_task, results["against"].by_task)
        different = wanted.comparable(results["policy"].conditions)
        print(f"policy - against, paired by task: {found.sentence}")
        for difference in different:
            print(printable(f"measured under other conditions: against's {difference}"))
        content |= {"against": cli.value("against"), "paired": asdict(found), "different": different}
    if output := cli.value("output"):
        write_whole(Path(output), json.dumps(content, indent=2) + "\n")
    return results


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    return run_command(lambda: evaluate(args))


if __name__ == "__main__":
    sys.exit(main())
