"""Does the longest possible micro-batch fit into memory? Asked before the run, not in its third hour."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from lightning import Callback, LightningModule, Trainer

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.batch import Columns, Credited, batches
from lit_agents.distributed import from_all_ranks, is_first
from lit_agents.errors import BadInput
from lit_agents.rollout.datamodule import RolloutDataModule
from lit_agents.rollout.schedule import Schedule
from lit_agents.run.callbacks.health import say
from lit_agents.types import Episode, Minibatch, StopReason, Task, Turn

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def worst_case(
    episodes: int, turns: int, context: int, max_tokens: int, vocabulary: int, version: int = -1
) -> Minibatch:
    """One part of episodes that share nothing, each as long as the context, with as many action tokens as there may be."""
    turns = max(1, min(turns, context // (max_tokens + 1)))
    seen = context - turns * max_tokens
    lengths = [seen // turns + (k < seen % turns) for k in range(turns)]
    stream = torch.Generator().manual_seed(0)
    made = []
    for member in range(episodes):
        ids = iter(torch.randint(vocabulary, (context,), generator=stream).tolist())
        exchanged = [
            Turn("", tuple(next(ids) for _ in range(n)), "", tuple(next(ids) for _ in range(max_tokens)), (), -1, {})
            for n in lengths
        ]
        made.append(Episode(Task("", "", "train"), member, tuple(exchanged), StopReason.TURN_LIMIT, 1.0))
    one = torch.ones(episodes, turns * max_tokens)
    columns = Columns(one.bool(), -one, 0 * one)
    data = Credited(tuple(made), columns, one, 0 * one, 0 * one, -one, -one, torch.arange(episodes), version)
    (minibatch,) = batches(data, range(episodes), 1, episodes * context, False, False)
    return minibatch


def longest_at_once(schedule: Schedule, context: int, ranks: int) -> int:
    """Episodes as long as the context that go through the model at once: as the tokens allow, or all of a minibatch."""
    share = -(-schedule.tasks * schedule.group_size // (ranks * schedule.minibatches))
    return max(1, min(schedule.micro_batch_tokens // context, share))


def peak(device: torch.device, work: Callable[[], None]) -> float:
    """Highest memory in bytes while something is done: allocated on a GPU, resident in this process on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return float(torch.cuda.max_memory_allocated(device))
    if RESET.exists():
        RESET.write_text("5")  # forget the highest resident size so far
    work()
    if STATUS.exists():
        return 1024.0 * next(
            int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")
        )
    unit = 1 if sys.platform == "darwin" else 1024
    return float(unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def there_is(device: torch.device) -> float:
    """Bytes this process could have altogether, as far as that can be known."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    free, own = Path("/proc/meminfo"), peak(device, lambda: None)
    if not free.exists():
        return float("inf")
    return own + 1024.0 * next(int(line.split()[1]) for line in free.read_text().splitlines() if "MemAvailable" in line)


@dataclass(frozen=True)
class Need:
    """Bytes."""

    episodes: int
    context: int
    step: float
    """Peak of one training step, weights and the optimizer's state included."""
    caches: float
    """What the engine may take besides, when all its conversations are as long as they can be."""
    there: float

    @property
    def sentence(self) -> str:
        """For a person."""
        step, caches, there = (f"{value / 1e9:.2f} GB" for value in (self.step, self.caches, self.there))
        what = f"{self.episodes} episodes of {self.context:,} tokens that share nothing"
        return f"preflight: a training step on {what} takes {step}, the engine's caches up to {caches} more, of {there}"


class MemoryPreflight(Callback):
    """Runs the longest possible micro-batch through one training step before the first iteration, and undoes it.

    One episode goes first: if as many as there may be at once cannot fit by that measure, they are not tried, since on a CPU
    the system would kill the process instead of refusing.

    Raises:
        BadInput: it does not fit.
    """

    def __init__(self) -> None:
        self.need: Need | None = None
        """What was found."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        module, data = cast(AgentModule, pl_module), cast(RolloutDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        device, limits = module.policy.device, data.limits
        episodes = longest_at_once(data.schedule, limits.context, trainer.world_size)
        caches = float(data.engine.most_bytes)
        there, before = there_is(device), peak(device, lambda: None)
        vocabulary, max_tokens = int(module.policy.config.vocab_size), data.sampling.max_tokens

        def need(count: int) -> Need:
            longest = (limits.turns, limits.context, max_tokens, vocabulary)
            minibatch = worst_case(count, *longest, module.expected_version).to(device)
            try:
                step = peak(device, lambda: two_steps(trainer, module, minibatch))
            except torch.OutOfMemoryError:
                step = there + 1
            return Need(count, limits.context, step, caches, there)

        first = need(1)
        guess = Need(episodes, limits.context, before + (first.step - before) * episodes, caches, there)
        self.need = need(episodes) if guess.step <= there else guess
        if all_that_is_needed(self.need, device) > there:
            name, said = "data.schedule.micro_batch_tokens", f"{self.need.sentence.removeprefix('preflight: ')}."
            raise BadInput(name, said, "Lower it, or data.limits.context or data.limits.concurrent.")
        if is_first():
            say(self.need.sentence)


def all_that_is_needed(need: Need, device: torch.device) -> float:
    """Bytes, the same in every process: of the one that needs most, or of all that share this computer's memory."""
    on_gpu = device.type == "cuda"  # where the caches are there already
    everyone = from_all_ranks([(socket.gethostname(), need.step + (0.0 if on_gpu else need.caches))])
    if on_gpu:
        return max(taken for _, taken in everyone)
    return max(sum(taken for host, taken in everyone if host == each) for each, _ in everyone)


def two_steps(trainer: Trainer, module: AgentModule, minibatch: Minibatch) -> None:
    """Two training steps of a fresh optimizer, which has its state in the second; afterwards every parameter is what it was."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    before = [p.detach().to("cpu", copy=True) for p in parameters]
    optimizer = module.optimizer(module.parameter_groups())
    try:
        for _ in range(2):
            with trainer.precision_plugin.train_step_context():
                loss = module.training_step(minibatch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    finally:
        for p, old in zip(parameters, before, strict=True):
            p.data.copy_(old)
            p.grad = None
