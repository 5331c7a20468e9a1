"""What the benchmarks have in common: the model, the games, clocks, and what the machine could do at best."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from imitator import imitator

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from lit_agents.policy.engine.base import Engine
from lit_agents.policy.sampling import Sampling
from lit_agents.rollout.agents import PolicyPlayer
from lit_agents.rollout.collector import Job
from lit_agents.rollout.runner import Stage
from lit_agents.rollout.schedule import Limits
from lit_agents.types import Episode


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The setting of the targets; smaller for a first try."""
    made = argparse.ArgumentParser(
        description=doc, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--spec", default="w2-o3-q4", help="family of TextWorld games")
    made.add_argument("--groups", type=int, default=8, help="games")
    made.add_argument("--size", type=int, default=8, help="episodes of each game")
    made.add_argument("--turns", type=int, default=8, help="actions an episode may take")
    made.add_argument("--weights", help="folder or hub id; by default SmolLM2 after the quickstart's supervised stage")
    made.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    return made


def policy_of(args: argparse.Namespace) -> CausalLMPolicy:
    """As in conf/textworld/quickstart.yaml: adapters of rank 16 in the upper half."""
    adapters = LoRA(rank=16, alpha=32, last_layers=15)
    policy = CausalLMPolicy(args.weights or imitator(), dtype=args.dtype, lora=adapters)
    policy.load()
    return policy


@dataclass
class Clock:
    """Seconds and calls by part, of methods that are watched."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def clear(self) -> None:
        self.seconds.clear()
        self.calls.clear()

    def watch(self, thing: Any, part: str, *methods: str) -> None:
        """Count the time spent in some methods of an object."""
        for name in methods:
            setattr(thing, name, self._timed(getattr(thing, name), part))

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)  # Lightning looks at what a hook takes
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.during(part):
                return function(*args, **kwargs)

        return timed

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - begun
            self.calls[part] += 1


class Table:
    """Games on a table, to be played by one engine after another."""

    def __init__(self, args: argparse.Namespace, policy: CausalLMPolicy) -> None:
        world = TextWorld()
        self.tasks = world.tasks(args.spec, "train", args.groups)
        self.jobs = [Job(task, m, (0, task.id, m)) for task in self.tasks for m in range(args.size)]
        self.limits = Limits(turns=args.turns, context=1024, concurrent=len(self.jobs))
        self.stage, self.policy, self.sampling = Stage(world, policy.chat, self.limits), policy, Sampling()
        self.clock = Clock()
        self.clock.watch(self.stage._pool, "environments", "reset", "step")

    def play(self, engine: Engine) -> list[Episode]:
        """Every job, from fresh weights on, with the same random numbers."""
        engine.refresh()
        player = PolicyPlayer(engine, self.policy.chat, self.sampling, 0)
        with self.clock.during("rollout"):
            return self.stage.play(self.jobs, player, self.sampling.max_tokens, lambda what, done, total: None)


def groups_of(episodes: Sequence[Episode], size: int) -> list[list[Episode]]:
    return [list(episodes[i : i + size]) for i in range(0, len(episodes), size)]


def unique_tokens(groups: Iterable[Sequence[Episode]]) -> int:
    """Nodes of the groups' prefix trees, counted without the package's tree."""
    return sum(len({tuple(e.token_ids[: i + 1]) for e in group for i in range(len(e.token_ids))}) for group in groups)


def described(episodes: Sequence[Episode], size: int) -> str:
    groups = groups_of(episodes, size)
    unique, tokens = sum(len(token_tree(g).ids_S) for g in groups), sum(len(e.token_ids) for e in episodes)
    turns, sampled = sum(len(e.turns) for e in episodes), sum(len(t.action_ids) for e in episodes for t in e.turns)
    won = sum(e.won for e in episodes)
    return (
        f"{len(episodes)} episodes ({won} won), {turns} turns, {tokens} tokens of which {sampled} sampled; "
        f"{unique} unique in groups of {size}"
    )


def seconds_of(work: Callable[[], Any], least: int = 3) -> float:
    """The fastest of a few tries, after one that does not count."""
    work()
    tries = []
    for _ in range(least):
        begun = time.perf_counter()
        work()
        tries.append(time.perf_counter() - begun)
    return min(tries)


@dataclass(frozen=True)
class Machine:
    """What this machine does at best, measured now."""

    flops: float
    """Floating-point operations per second in a large matrix product."""
    bytes: float
    """Bytes per second read from memory."""

    @classmethod
    def measured(cls, dtype: torch.dtype) -> Machine:
        x, w = torch.randn(2048, 1536).to(dtype), torch.randn(1536, 1536).to(dtype)
        flops = 2 * 2048 * 1536 * 1536 / seconds_of(lambda: torch.nn.functional.linear(x, w), 10)
        much = torch.zeros(1 << 26, dtype=torch.float32)
        return cls(flops, much.nbytes / seconds_of(lambda: much.sum(), 5))

    def __str__(self) -> str:
        return f"this machine: {self.flops / 1e9:.0f} GFLOP/s, {self.bytes / 1e9:.1f} GB/s, {torch.get_num_threads()} threads"


def model_flops(policy: CausalLMPolicy) -> tuple[float, float]:
    """Operations of a forward pass per token, without attention: the layers, and the LM head."""
    head = policy.hf.get_output_embeddings().weight.numel()
    embedding = policy.hf.get_input_embeddings().weight
    tied = policy.hf.get_output_embeddings().weight is embedding
    inner = sum(p.numel() for p in policy.hf.parameters()) - head - (0 if tied else embedding.numel())
    return 2.0 * inner, 2.0 * head
