"""One-line faults in budgets and studies; a part of `tests.faults`."""

from __future__ import annotations

from tests.fault import Fault

GATHERED, TABLES = ("tests/report/test_material.py",), ("tests/report/test_tables.py",)
PLAN, BUDGET = ("tests/rollout/test_budget.py",), ("tests/integration/test_budget.py",)
WORKERS, TAKEN = ("tests/study/test_workers.py",), ("tests/evaluation/test_taken_over.py",)
BEARS = ("tests/integration/test_fit.py", "-k", "bears")

STUDY_FAULTS = [
    Fault("end a budget with fewer groups than steps", "rollout/budget.py",
          "if rest >= least or not iterations:", "if rest or not iterations:", PLAN),
    Fault("let what is too little for an iteration go unspent", "rollout/budget.py",
          "schedule.tasks, schedule.tasks + rest)", "schedule.tasks, schedule.tasks)", PLAN),
    Fault("round a price", "rollout/budget.py", "return Fraction(str(value))", "return Fraction(round(value))", PLAN),
    Fault("play a whole iteration where the budget pays for a part", "rollout/datamodule.py",
          "replace(self.schedule, tasks=tasks)", "self.schedule", BUDGET),
    Fault("count a game again in every iteration", "rollout/datamodule.py",
          "distinct(self.iteration, tasks) - before", "distinct(self.iteration, tasks)", BUDGET),
    Fault("leave the last episodes' lesson unvalidated", "callbacks/last_validated.py",
          "trainer.check_val_every_n_epoch = 1", "pass", BUDGET),
    Fault("measure elsewhere within the same number of turns", "rollout/stage.py",
          "other._limits = limits", "assert limits", BUDGET),
    Fault("measure on the test tasks what settings are chosen by", "evaluate.py",
          "tasks = data.split(split)", 'tasks = data.split("test")', BUDGET),
    Fault("report trials that have not ended", "report/material.py",
          'if row["state"] != "COMPLETE":', 'if row["state"] == "PRUNED":', GATHERED),
    Fault("count a seed twice", "report/material.py",
          "for other in kept if other.seed", "for other in kept[:1] if other.seed", GATHERED),
    Fault("report a place where not all seeds were measured", "report/material.py",
          "tuple(_without(record, lost) for record in kept)", "tuple(kept)", GATHERED),
    Fault("report a run that has not ended as if SFT had been its end", "report/loose_runs.py",
          "if record.last != (wanted := _ends_with(config)):", "if not (wanted := _ends_with(config)):", GATHERED),
    Fault("pair what was measured on other tasks", "report/tables.py",
          'return first.environment.get("task_files") == second', "return bool(first) or second", TABLES),
    Fault("take a difference on a handful of tasks for certain", "evaluation/bootstrap.py",
          "if better + worse < FEW or low == high:", "if False:", ("tests/evaluation/test_bootstrap.py",)),
    Fault("forget the tests of a shared stage in what a run cost", "study/records.py",
          '_read(start / "ledger.json")["seconds"] | ledger["seconds"]', 'ledger["seconds"]', GATHERED),
    Fault("call a setting that a search repeated not begun", "study/trials.py", "begun = len(rows)",
          "begun = len({row['label'] for row in rows})", WORKERS),
    Fault("let runs of other threads go on", "study/runs.py", "if self._stop.is_set():", "if False:", WORKERS),
    Fault("take a checkpoint for its name", "study/supervised.py",
          "return start and (start, hash_of(Path(start)) if Path(start).is_file() else \"\")", "return start", WORKERS),
    Fault("correct every comparison as if it were the last", "evaluation/paired.py",
          "(len(ps) - rank) * ps[i]", "ps[i]", TABLES),
    Fault("call what is beaten in one thing beaten", "report/front.py",
          "and all(a >= b for", "and any(a > b for", TABLES),
    Fault("draw curves over the last iteration's cost", "report/figures.py", "spent += price *", "spent = price *", TABLES),
    Fault("choose a search's settings by their tests", "report/tables.py",
          "by = material.objectives[0] if material.searched else place", "by = place", TABLES),
    Fault("leave the working folder while other threads are at work in it", "study/runs.py",
          'self._resolve(["--config", write_yaml(dict(config))])',
          "self._resolve(self._arguments(config))", WORKERS),
    Fault("end a study that has lost a trial as if it were done", "study/search.py",
          "if lost := storage.give_back(trials):", "if (lost := storage.give_back(trials)) and not lost:", WORKERS),
    Fault("take over what was measured before a stage went on", "evaluation/taken_over.py",
          '"steps": steps, "by": dict(by)}', '"by": dict(by)}', TAKEN),
    Fault("take over what was measured in another precision", "evaluation/taken_over.py",
          '"steps": steps, "by": dict(by)}', '"steps": steps}', TAKEN),
    Fault("take over what was measured under other conditions", "evaluation/result.py",
          "return bool(first == second)", "return bool(first.keys() == second.keys())", BEARS),
    Fault("write what an episode said into the page as it is", "report/writing.py",
          "autoescape=True", "autoescape=False", ("tests/report/test_page.py::test_what_a_run_said_is_text",)),
]  # fmt: skip
