"""One update on groups of episodes that share their beginnings: token trees against one tree per episode.

    python benchmarks/update.py [--groups 4] [--size 8] [--prompt 220] [--turns 5]

Both sides compute the same loss (checked); the last line is one JSON object with the ratio of their times.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from lit_agents.rollout.trie import token_tree
from lit_agents.types import Episode, StopReason, Task, Turn


def episodes(groups: int, size: int, prompt: int, turns: int) -> list[list[Episode]]:
    """Random tokens; a member leaves the path it shares with the member before it at a random turn."""
    rng = np.random.default_rng(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(int(i) for i in rng.integers(1000, 40000, count))

    made = []
    for g in range(groups):
        task, group = Task("random", str(g), "train"), []
        path = [(ids(prompt if k == 0 else 50), ids(6)) for k in range(turns)]
        for m in range(size):
            shared = int(rng.integers(0, turns))
            path = path[:shared] + [(o if k == 0 else ids(50), ids(6)) for k, (o, _) in enumerate(path)][shared:]
            played = tuple(Turn("", o, "", a, (0.0,) * len(a), 0, {}) for o, a in path)
            group.append(Episode(task, m, played, StopReason.WON, 1.0))
        made.append(group)
    return made


def update(policy: CausalLMPolicy, batches: list[list[Episode]]) -> tuple[float, float, int]:
    """Seconds, mean log-probability and tokens computed of one forward and backward pass over all batches."""
    policy.zero_grad()
    begun, total, count, tokens = time.perf_counter(), 0.0, 0, 0
    for batch in batches:
        tree = token_tree(batch)
        scores = policy.score(tree, 1.0)
        scores.logprobs_BA.sum().backward()
        total += float(scores.logprobs_BA.detach().sum())
        count += int(tree.mask_BA.sum())
        tokens += len(tree.ids_S)
    return time.perf_counter() - begun, total / count, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("groups", 4), ("size", 8), ("prompt", 220), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    policy = CausalLMPolicy(dtype="bfloat16", lora=LoRA())
    policy.load()
    grouped = episodes(args.groups, args.size, args.prompt, args.turns)
    single = [[e] for group in grouped for e in group]
    update(policy, grouped[:1])  # warm-up
    ours, theirs = min(update(policy, grouped) for _ in range(2)), min(update(policy, single) for _ in range(2))
    if not np.isclose(ours[1], theirs[1], rtol=2e-2):
        raise SystemExit(f"the two sides disagree: mean log-probability {ours[1]} and {theirs[1]}")
    print(f"token trees {ours[0]:.2f} s, {ours[2]} tokens; one tree per episode {theirs[0]:.2f} s, {theirs[2]} tokens")
    ratios = {"one_tree_per_episode": round(theirs[0] / ours[0], 2)}
    unique = sum(
        len({tuple(e.token_ids[: i + 1]) for e in group for i in range(len(e.token_ids))}) for group in grouped
    )
    per_unique = round(ours[2] / unique, 3)
    print(json.dumps({"ratios": ratios, "tokens_per_unique": per_unique, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
