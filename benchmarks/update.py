"""The update of one iteration: token trees against padded batches, with the LM head on action tokens and on every token.

    python benchmarks/update.py [--groups 8] [--size 8] [--turns 8]
    python benchmarks/update.py --sweep

All sides compute the same loss and the same gradients from the same episodes, played first, `--per_pass` of them per forward
and backward pass: to rounding in float32 (checked on a few of them), within what bfloat16 leaves of a sum with signs else.
The padded sides are the transformers model as it comes, with its fastest attention.
--sweep shows how the ratios change with length, group size and how much a group shares, on random tokens.
The last line is one JSON object: how many times faster ours is, and how many times more memory they take.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from setting import Machine, Table, described, groups_of, model_flops, parser, policy_of, unique_tokens
from torch import Tensor

from lit_agents.callbacks.memory import peak
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.transformers import TransformersEngine
from lit_agents.rollout.trie import action_places, token_tree
from lit_agents.types import Episode, StopReason, Task, Turn

TOLERANCE = 1e-4  # of the gradient's length, in float32
Loss = Callable[[CausalLMPolicy, Sequence[Episode]], Tensor]


def random_groups(groups: int, size: int, prompt: int, turns: int, overlap: float) -> list[list[Episode]]:
    """Random tokens; in every turn a member goes on as the member before it with probability ``overlap``, until it does not."""
    rng = np.random.default_rng(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(int(i) for i in rng.integers(1000, 40000, count))

    made = []
    for g in range(groups):
        task, group = Task("random", str(g), "train"), []
        path = [(ids(prompt if k == 0 else 50), ids(6)) for k in range(turns)]
        for m in range(size):
            shared = int(np.argmin([*(rng.random(turns) < overlap), False]))
            path = path[:shared] + [(o if k == 0 else ids(50), ids(6)) for k, (o, _) in enumerate(path)][shared:]
            played = tuple(Turn("", o, "", a, (0.0,) * len(a), 0, {}) for o, a in path)
            group.append(Episode(task, m, played, StopReason.WON, 1.0))
        made.append(group)
    return made


def advantage(episode: Episode) -> float:
    """Some number that belongs to the episode, so that a mix-up shows."""
    return float(np.random.default_rng(sum(episode.token_ids)).normal())


def tree_loss(policy: CausalLMPolicy, episodes: Sequence[Episode]) -> Tensor:
    advantages_B1 = torch.tensor([[advantage(e)] for e in episodes])
    return -(policy.score(token_tree(episodes), 1.0).logprobs_BA * advantages_B1).sum()


def padded_inputs(episodes: Sequence[Episode]) -> dict[str, Tensor]:
    longest = max(len(e.token_ids) for e in episodes)
    ids = torch.tensor([e.token_ids + [0] * (longest - len(e.token_ids)) for e in episodes])
    mask = torch.tensor([[1] * len(e.token_ids) + [0] * (longest - len(e.token_ids)) for e in episodes])
    return {"input_ids": ids, "attention_mask": mask}


def chosen(logits_UV: Tensor, targets_U: Tensor) -> Tensor:
    return torch.log_softmax(logits_UV.float(), dim=-1).gather(-1, targets_U[..., None]).squeeze(-1)


def padded_action_logits(policy: CausalLMPolicy, episodes: Sequence[Episode]) -> Tensor:
    with policy.precision():
        hidden_BTH = policy.hf.base_model(**padded_inputs(episodes), use_cache=False).last_hidden_state
        rows = torch.tensor([b for b, e in enumerate(episodes) for _ in action_places(e)])
        places = torch.tensor([p for e in episodes for p in action_places(e)])
        targets = torch.tensor([e.token_ids[p] for e in episodes for p in action_places(e)])
        logits_UV = policy.hf.get_output_embeddings()(hidden_BTH[rows, places - 1])
    weights = torch.tensor([advantage(e) for e in episodes])[rows]
    return -(chosen(logits_UV, targets) * weights).sum()


def padded_full_logits(policy: CausalLMPolicy, episodes: Sequence[Episode]) -> Tensor:
    inputs = padded_inputs(episodes)
    with policy.precision():
        logits_BTV = policy.hf(**inputs, use_cache=False).logits
    weights_BT = torch.zeros(inputs["input_ids"].shape)
    for b, e in enumerate(episodes):
        weights_BT[b, action_places(e)] = advantage(e)
    return -(chosen(logits_BTV[:, :-1], inputs["input_ids"][:, 1:]) * weights_BT[:, 1:]).sum()


def one_pass(policy: CausalLMPolicy, batches: Sequence[Sequence[Episode]], loss_of: Loss) -> tuple[float, Tensor]:
    """Loss and gradient of all batches."""
    policy.zero_grad()
    total = 0.0
    for batch in batches:
        loss = loss_of(policy, batch)
        loss.backward()
        total += float(loss.detach())
    return total, torch.cat([p.grad.flatten() for p in policy.trainable.values() if p.grad is not None])


def check(args: argparse.Namespace, episodes: Sequence[Episode]) -> None:
    """In float32, where the sides cannot differ by more than a little."""
    policy = policy_of(argparse.Namespace(**{**vars(args), "dtype": "float32"}))
    ours, model = policy.config._attn_implementation, policy.hf
    loss, gradient = one_pass(policy, [episodes], tree_loss)
    model.set_attn_implementation("sdpa")
    for side in (padded_action_logits, padded_full_logits):
        theirs, other = one_pass(policy, [episodes], side)
        far = float((other - gradient).norm() / gradient.norm())
        print(
            f"float32, {len(episodes)} episodes: {side.__name__} loss {theirs:.6f}, ours {loss:.6f}, gradients {far:.1e} apart"
        )
        if far > TOLERANCE:
            raise SystemExit("the sides disagree")
    model.set_attn_implementation(ours)


def compare(policy: CausalLMPolicy, batches: Sequence[Sequence[Episode]], sides: dict[str, Loss]) -> dict[str, float]:
    """Ratios of time, and of peak memory above what the process has before, to ours."""
    ours = policy.config._attn_implementation
    seconds, memory, found = {}, {}, {}
    for name, loss_of in {"ours": tree_loss, **sides}.items():
        policy.hf.set_attn_implementation(ours if name == "ours" else "sdpa")
        before = peak(policy.device, lambda: None)
        memory[name] = peak(policy.device, lambda f=loss_of: one_pass(policy, batches, f)) - before  # and warm
        begun = time.perf_counter()
        found[name] = one_pass(policy, batches, loss_of)
        seconds[name] = time.perf_counter() - begun
        far = (found[name][1] - found["ours"][1]).norm() / found["ours"][1].norm()
        print(
            f"  {name}: {seconds[name]:.2f} s, {memory[name] / 1e9:.2f} GB, gradient differs by {far:.1e}", flush=True
        )
        if far > (0.3 if policy.dtype == torch.bfloat16 else TOLERANCE):
            raise SystemExit(f"{name} and ours disagree: losses {found[name][0]} and {found['ours'][0]}")
    policy.hf.set_attn_implementation(ours)
    ratios = {name: seconds[name] / seconds["ours"] for name in sides}
    if "padded_full_logits" in sides:
        ratios["memory_full_logits"] = memory["padded_full_logits"] / memory["ours"]
    return {name: round(value, 2) for name, value in ratios.items()}


def batched(groups: Sequence[Sequence[Episode]], per_pass: int) -> list[list[Episode]]:
    episodes = [e for group in groups for e in group]
    return [episodes[i : i + per_pass] for i in range(0, len(episodes), per_pass)]


def sweep(policy: CausalLMPolicy, per_pass: int) -> None:
    """Group size, turns and overlap, one at a time."""
    usual = {"groups": 2, "size": 8, "prompt": 220, "turns": 5, "overlap": 0.5}
    for name, values in {"size": (1, 4, 16), "turns": (2, 10), "overlap": (0.0, 0.5, 0.9), "prompt": (60, 900)}.items():
        for value in values:
            setting = usual | {name: value}
            groups = random_groups(**setting)  # type: ignore[arg-type]
            tokens = sum(len(e.token_ids) for group in groups for e in group)
            print(
                f"{name} {value}: {tokens} tokens, {tokens / unique_tokens(groups):.2f} times the unique ones",
                flush=True,
            )
            print(" ", compare(policy, batched(groups, per_pass), {"padded_action_logits": padded_action_logits}))


def floor(policy: CausalLMPolicy, machine: Machine, unique: int, actions: int) -> float:
    """Seconds at least: forward, and the gradients of activations in the upper half where the adapters are."""
    inner, head = model_flops(policy)
    return (unique * inner * 1.5 + actions * head * 2) / machine.flops


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--per_pass", type=int, default=16, help="episodes per forward and backward pass")
    made.add_argument("--sweep", action="store_true")
    args: argparse.Namespace = made.parse_args()
    policy, machine = policy_of(args), None
    if args.sweep:
        return sweep(policy, args.per_pass)
    engine, table = TransformersEngine(), Table(args, policy)
    table.stage.attach(engine, policy)
    episodes = table.play(engine)
    table.stage.close()
    groups, machine = groups_of(episodes, args.size), Machine.measured(policy.dtype)
    batches = batched(groups, args.per_pass)
    trees = [token_tree(batch) for batch in batches]
    computed, unique = sum(len(tree.ids_S) for tree in trees), unique_tokens(groups)
    print(f"{described(episodes, args.size)}\n{machine}")
    print(f"floor: {floor(policy, machine, unique, sum(len(t.sources_U) for t in trees)):.2f} s")
    check(args, [*groups[0][:3], *groups[-1][:2]])
    sides = {"padded_action_logits": padded_action_logits, "padded_full_logits": padded_full_logits}
    ratios = compare(policy, batches, sides)
    print(json.dumps({"ratios": ratios, "tokens_per_unique": round(computed / unique, 3), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
