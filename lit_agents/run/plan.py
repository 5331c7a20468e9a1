"""What a run will do, decided and refused before anything is made or loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lit_agents.algorithm.credit_check import check_credit
from lit_agents.errors import BadInput, refuse_name
from lit_agents.rollout.budget import Budget, Plan
from lit_agents.run.cli import AgentCLI, SupervisedStage
from lit_agents.run.trainer_checks import refuse_optimizer

TAKEN = ("test", "validation", "sft", "rl")


@dataclass(frozen=True)
class RunPlan:
    """The stages of a run."""

    device: torch.device
    """Of this process."""
    supervised: SupervisedStage | None
    """None for no such stage."""
    demonstrations: int
    """Of that stage."""
    iterations: int | None
    """Of RL; None if the trainer says when it ends."""
    spending: Plan | None
    """How RL spends a budget of episodes."""


def planned(cli: AgentCLI) -> RunPlan:
    """Refuse what cannot work; what is left is the plan.

    Raises:
        BadInput: by the name of the file or flag.
    """
    data, module, sft, budget = cli.datamodule, cli.model, cli.value("sft"), cli.value("budget")
    refuse_name("--name", cli.value("name"))
    device, processes = cli.machine()
    data.schedule.check(module.compares_group, processes, data.limits.context)
    check_credit(module)
    critic = getattr(module, "critic_lr", None) if module.has_critic else None
    refuse_optimizer("model.optimizer", module.optimizer, module.policy.lora is None, critic, device)
    if sft:
        refuse_optimizer("sft.optimizer", sft.optimizer, module.policy.lora is None, None, device)
    steps, each = cli.value("trainer").max_steps, data.schedule.steps_per_iteration
    if steps > 0 and steps % each:
        reason = f"{steps} steps are no whole iterations of {each}: of the last one a part would not be trained on."
        raise BadInput("trainer.max_steps", reason, f"Use a multiple of {each}, or trainer.max_epochs.")
    if module.demonstrated and sft:
        raise BadInput("sft", "the model is itself the supervised stage.", "Set sft to null.")
    for place in cli.value("elsewhere"):
        if place in TAKEN or "/" in place:
            raise BadInput(f"elsewhere.{place}", "the name is taken, or has a slash.", "Choose another one.")
    plan = _bought(cli, budget, device, processes) if budget else _given(cli, device)
    if plan.demonstrations % processes:
        name = "budget.sft_share" if budget else "sft.demonstrations"
        reason = f"{plan.demonstrations} demonstrations cannot be shared by {processes} processes."
        raise BadInput(name, reason, f"Let it be a multiple of {processes}.")
    if plan.supervised and plan.demonstrations < plan.supervised.minibatches * processes:
        shared = f"{plan.demonstrations} demonstrations are shared by {processes} processes"
        reason = f"{plan.supervised.minibatches} minibatches cannot each hold one of every process: {shared}."
        raise BadInput(
            "sft.minibatches", reason, "Lower it, or raise sft.demonstrations, or the budget's share for them."
        )
    schedule, count = data.schedule, data.counts["train"]
    most = max([schedule.tasks, plan.spending.last] if plan.spending else [schedule.tasks])
    if most > count:
        reason = f"{most} in an iteration, but there are {count} (data.train_tasks)."
        raise BadInput("data.schedule.tasks", reason, "Lower it, or raise data.train_tasks.")
    if module.demonstrated and (schedule.tasks, schedule.group_size) != (count, 1):
        reason = f"{schedule.tasks} x {schedule.group_size}; demonstrations are collected once, one of each of {count} tasks."
        raise BadInput("data.schedule.tasks x group_size", reason, "Set tasks to data.train_tasks and group_size to 1.")
    return plan


def _given(cli: AgentCLI, device: torch.device) -> RunPlan:
    """Both stages as the configuration says."""
    sft = cli.value("sft")
    if sft and sft.demonstrations is None:
        raise BadInput("sft.demonstrations", "it is null, and there is no budget.", "Say how many, or set a budget.")
    return RunPlan(device, sft, sft.demonstrations if sft else 0, _validated(cli), None)


def _validated(cli: AgentCLI) -> int | None:
    """The trainer's iterations, if a checkpoint of them is chosen on validation."""
    every, epochs = (cli.value("trainer")[key] for key in ("check_val_every_n_epoch", "max_epochs"))
    if every and epochs and 0 < epochs < every:
        reason = f"{every} is more than trainer.max_epochs={epochs}, so no checkpoint would be chosen on validation."
        raise BadInput("trainer.check_val_every_n_epoch", reason, f"Set it to {epochs} or less.")
    return None if epochs is None else int(epochs)


def _bought(cli: AgentCLI, budget: Budget, device: torch.device, processes: int) -> RunPlan:
    """Both stages as the budget pays for them."""
    sft, schedule, epochs = cli.value("sft"), cli.datamodule.schedule, cli.value("trainer").max_epochs
    bought = budget.demonstrations
    if cli.model.demonstrated:
        reason, way_out = "the model is itself the supervised stage.", "Use an RL algorithm, and sft_share 1."
        raise BadInput("budget", reason, way_out)
    if sft and sft.demonstrations is not None:
        raise BadInput("sft.demonstrations", "the budget says how many.", "Set it to null, or leave out the budget.")
    if bought and bool(sft) == bool(cli.value("start_from")):
        reason = f"its {bought} demonstrations need one supervised stage: here (sft), or of another run (start_from)."
        raise BadInput("budget.sft_share", reason, "Give one of the two, or set the share to 0.")
    if schedule.resample_rounds:
        reason = "with a budget nobody could say beforehand how many episodes there will be."
        raise BadInput("data.schedule.resample_rounds", reason, "Set it to 0, or leave out the budget.")
    supervised = sft if bought else None
    if budget.prices.game:
        return RunPlan(device, supervised, bought, _games(cli, budget), None)
    if epochs is not None:
        raise BadInput("trainer.max_epochs", "the budget says how long RL is.", "Set it to null.")
    spending = budget.plan(schedule, processes)
    return RunPlan(device, supervised, bought, spending.iterations, spending)


def _games(cli: AgentCLI, budget: Budget) -> int | None:
    """Iterations of RL where games are what is paid for."""
    games, given, epochs = budget.games(), cli.datamodule.counts["train"], cli.value("trainer").max_epochs
    if not games and budget.sft_share < 1:
        reason = f"{float(budget.for_rl):g} units are left for RL, less than a game costs."
        raise BadInput("budget", reason, "Raise budget.total, or set budget.sft_share to 1 for SFT alone.")
    if games and (games != given or not epochs):
        reason = f"the budget pays for {games} games; data.train_tasks is {given}, trainer.max_epochs {epochs}."
        raise BadInput("budget.prices.game", reason, f"Set data.train_tasks to {games} and max_epochs to a number.")
    return _validated(cli) if games else 0


def refuse_another_start(plan: RunPlan, spent: Mapping[str, Any]) -> None:
    """Of a run with a budget: what it begins with must have cost what the budget says.

    Args:
        spent: `lit_agents.rollout.ledger.Ledger.total` of the run it begins with.

    Raises:
        BadInput: it has other demonstrations behind it, or RL.
    """
    there = {name: spent[name] for name in ("demonstrations", "episodes", "games")}
    lost = plan.demonstrations - there["demonstrations"]  # what a world broke for good is not paid for
    if not 0 <= lost <= spent["failed_episodes"] or there["episodes"] or there["games"]:
        found = ", ".join(f"{count} {name}" for name, count in there.items())
        reason = f"behind it are {found}; the budget buys {plan.demonstrations} demonstrations for that stage."
        raise BadInput("start_from", reason, "Begin with a supervised stage of that size, or leave out the budget.")
