"""Train: ``python -m lit_agents.fit --config conf/textworld/quickstart.yaml``.

Measures the untouched model, or what ``--start_from`` names, on the test tasks, imitates the expert if ``sft`` is set, measures,
learns by RL, measures the checkpoint that was best on the validation tasks, and leaves everything in a run folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from lit_agents.distributed import is_first
from lit_agents.errors import printable
from lit_agents.evaluation.console import draw_curve, print_table
from lit_agents.rollout.held_out import seen_by
from lit_agents.run.cli import FitCLI, checkpoint_of
from lit_agents.run.folder import STAGES, RunFolder
from lit_agents.run.pipeline import Run, open_run
from lit_agents.run.plan import planned, refuse_another_start
from lit_agents.run.scheduler import scheduler_signals
from lit_agents.system.command import quiet, run_command


@quiet()
def fit(args: Sequence[str] | None = None) -> Run:
    """The command as a function: trains, and returns the run with its results."""
    begun = time.perf_counter()
    with scheduler_signals():
        return _fitted(FitCLI(args), begun)


def _fitted(cli: FitCLI, begun: float) -> Run:
    run = open_run(cli, planned(cli))
    try:
        _go(run)
        if is_first():
            _show(run, (time.perf_counter() - begun) / 60)
    finally:
        run.folder.release()
    return run


def _go(run: Run) -> None:
    """All that is refused, before anything is made; then the folder, and the stages."""
    cli, plan, data, module = run.cli, run.plan, run.cli.datamodule, run.cli.model
    if not (run.checkpoint and "base" in run.results):  # later all that it had is in the run's own checkpoint
        run.start = checkpoint_of(cli, "start_from")
    if run.start and cli.value("budget"):
        refuse_another_start(plan, run.start[type(data).__qualname__]["ledger"])
    needed = {"sft" if module.demonstrated else "train": None, "validation": None, "test": None}
    try:
        module.policy.check_context(data.limits.context)
        chat, shown = module.policy.chat, {"sft": plan.demonstrations} if plan.supervised else {}
        sets = data.preflight(chat, **needed, **shown)
        for other in cli.value("elsewhere").values():
            sets += data.elsewhere(other).preflight(chat, **{other.split: None})
        run.compare_conditions()
        data.keep_apart(sets, start_from=seen_by(run.start, type(data)))
        run.folder.create()
        if run.cut is not None:
            later = STAGES[STAGES.index(run.checkpoint.parent.name) + 1 :] if run.checkpoint else STAGES
            run.folder.cut(run.cut, later)
        run.mark_changes()  # first: a configuration that is there is taken for the one that was gone on with
        run.folder.keep_config(cli.config_text())
        begins = " (nothing to go on from: it begins)" if cli.value("ckpt_path") and not run.checkpoint else ""
        run.bar.console.print(f"run folder: {run.folder.path}{begins}", highlight=False, soft_wrap=True)
        run.go()
    except KeyboardInterrupt:
        _say_how_to_go_on(run.folder)
        raise
    finally:
        run.bar.hide()
        data.close()


def _show(run: Run, minutes: float) -> None:
    """Tables and the curve."""
    print_table(f"{next(iter(run.results.values())).conditions.sentence}, {minutes:.1f} min", run.results)
    for place in run.cli.value("elsewhere"):
        there = {name: found[place] for name, found in run.elsewhere.items() if place in found}
        print_table(f"{place}: {next(iter(there.values())).conditions.sentence}", there)
    for change in run.changes:
        print(printable(change.sentence))
    drawn = draw_curve(run.folder.path / "metrics.csv", run.folder.path / "curve.png", run.results)
    print(f"run folder: {run.folder.path}" + ("" if drawn else " (no curve: nothing was trained)"))


def _say_how_to_go_on(folder: RunFolder) -> None:
    if not is_first():
        return
    if not (folder.path / "config.yaml").exists():
        print("\ninterrupted before the run began; start it again.", file=sys.stderr)
        return
    command = f"python -m lit_agents.fit --config {folder.path}/config.yaml --run {folder.path} --ckpt_path last"
    print(f"\ninterrupted; {folder.path} is usable. Go on with\n  {command}", file=sys.stderr)


def main(args: Sequence[str] | None = None) -> int:
    """The command."""
    return run_command(lambda: fit(args))


if __name__ == "__main__":
    sys.exit(main())
