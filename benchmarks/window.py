"""What it costs to keep old turns out of sight: whole conversations against windows of turns, in long episodes.

    python benchmarks/window.py [--spec w4-o6-q8] [--groups 4] [--size 4] [--turns 40]

Every side plays the same games with the same random numbers, and the update of what it has played is computed once. What an
agent sees decides what it says, so the sides play other episodes, and everything is given per turn. `whole` keeps all turns in
sight; `20/8` drops all but the 8 newest ones when there are more than 20; `10/8` every three turns.
The last line is one JSON object: how many times what `whole` takes per turn the other sides take.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import torch
from setting import parser, policy_of
from update import batched, one_pass, tree_loss

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.policy.sampling import Sampling
from lit_agents.rollout.agents import PolicyPlayer
from lit_agents.rollout.collector import Job
from lit_agents.rollout.runner import Stage
from lit_agents.rollout.schedule import Limits, Window
from lit_agents.types import Episode

SIDES = {"whole": None, "20/8": Window(20, 8), "10/8": Window(10, 8)}


def played(policy: CausalLMPolicy, args: argparse.Namespace, window: Window | None) -> tuple[list[Episode], float, int]:
    """The episodes, seconds, and tokens the engine has computed."""
    world = TextWorld()
    tasks = world.tasks(args.spec, "train", args.groups)
    jobs = [Job(task, m, (0, task.id, m)) for task in tasks for m in range(args.size)]
    limits = Limits(turns=args.turns, context=args.context, concurrent=len(jobs), window=window)
    stage, engine, sampling = Stage(world, policy.chat, limits), TransformersEngine(), Sampling()
    stage.attach(engine, policy)
    engine.refresh()
    begun = time.perf_counter()
    episodes = stage.play(jobs, PolicyPlayer(engine, policy.chat, sampling, 0), sampling.max_tokens, lambda *_: None)
    seconds = time.perf_counter() - begun
    stage.close()
    return episodes, seconds, engine.cost.computed_tokens


def updated(policy: CausalLMPolicy, episodes: Sequence[Episode], size: int) -> tuple[float, int]:
    """Seconds of loss and gradients of all groups, and the tokens that go through the model for them."""
    batches = batched([episodes], size)
    begun = time.perf_counter()
    one_pass(policy, batches, tree_loss)
    return time.perf_counter() - begun, sum(len(token_tree(batch).ids_S) for batch in batches)


def main() -> None:
    made = parser(__doc__)
    made.set_defaults(spec="w4-o6-q8", groups=4, size=4, turns=40)
    made.add_argument("--context", type=int, default=8192, help="tokens of the longest conversation")
    args = made.parse_args()
    policy, found = policy_of(args), {}
    played(policy, argparse.Namespace(**{**vars(args), "turns": 2}), None)  # to warm up
    for name, window in SIDES.items():
        episodes, rollout, read = played(policy, args, window)
        update, trained = updated(policy, episodes, args.size)
        turns = sum(len(episode.turns) for episode in episodes)
        longest = max(len(talk.ids) for episode in episodes for talk in episode.conversations)
        found[name] = {
            "rollout_seconds": rollout / turns, "rollout_tokens": read / turns,
            "update_seconds": update / turns, "update_tokens": trained / turns,
        }  # fmt: skip
        costs = f"rollout {rollout / turns * 1e3:.0f} ms, {read / turns:.0f} tokens; "
        costs += f"update {update / turns * 1e3:.0f} ms, {trained / turns:.0f} tokens"
        print(
            f"{name:>6}: {len(episodes)} episodes, {turns} turns, at most {longest} tokens in sight; per turn: {costs}"
        )
    ratios = {
        name: {part: round(value / found["whole"][part], 2) for part, value in parts.items()}
        for name, parts in found.items()
        if name != "whole"
    }
    print(json.dumps({"ratios": ratios, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
