"""One-line faults in budgets and studies; a part of `tests.faults`."""

from __future__ import annotations

from tests.fault import Fault

PLAN, BUDGET = ("tests/rollout/test_budget.py",), ("tests/integration/test_budget.py",)

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
]  # fmt: skip
