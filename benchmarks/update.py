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
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from setting import Machine, Table, described, groups_of, model_flops, parser, policy_of, unique_tokens
from torch import Tensor

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.policy.attention import ATTENTION
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.run.callbacks.memory import peak
from lit_agents.types import Episode, StopReason, Task, Turn

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
        rows = torch.tensor([b for b, e in enumerate(episodes) for _ in e.conversations[0].places])
        places = torch.tensor([p for e in episodes for p in e.conversations[0].places])
        targets = torch.tensor([e.token_ids[p] for e in episodes for p in e.conversations[0].places])
        logits_UV = policy.hf.get_output_embeddings()(hidden_BTH[rows, places - 1])
    weights = torch.tensor([advantage(e) for e in episodes])[rows]
    return -(chosen(logits_UV, targets) * weights).sum()


def padded_full_logits(policy: CausalLMPolicy, episodes: Sequence[Episode]) -> Tensor:
    inputs = padded_inputs(episodes)
    with policy.precision():
        logits_BTV = policy.hf(**inputs, use_cache=False).logits
    weights_BT = torch.zeros(inputs["input_ids"].shape)
    for b, e in enumerate(episodes):
        weights_BT[b, e.conversations[0].places] = advantage(e)
    return -(chosen(logits_BTV[:, :-1], inputs["input_ids"][:, 1:]) * weights_BT[:, 1:]).sum()


SIDES: dict[str, Loss] = {
    "ours": tree_loss, "padded_action_logits": padded_action_logits, "padded_full_logits": padded_full_logits,
}  # fmt: skip


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
    loss, gradient = one_pass(policy, [episodes], tree_loss)
    for side in ("padded_action_logits", "padded_full_logits"):
        become(policy, side)
        theirs, other = one_pass(policy, [episodes], SIDES[side])
        far = float((other - gradient).norm() / gradient.norm())
        print(
            f"float32, {len(episodes)} episodes: {side} loss {theirs:.6f}, ours {loss:.6f}, gradients {far:.1e} apart"
        )
        if far > 1e-4:
            raise SystemExit("the sides disagree")


def compare(policy: CausalLMPolicy, batches: Sequence[Sequence[Episode]], sides: Sequence[str]) -> dict[str, float]:
    """How many times longer other sides take."""
    seconds, gradients = {}, {}
    for name in ("ours", *sides):
        become(policy, name)
        one_pass(policy, batches[:1], SIDES[name])  # to warm up
        begun = time.perf_counter()
        loss, gradients[name] = one_pass(policy, batches, SIDES[name])
        seconds[name] = time.perf_counter() - begun
        far = (gradients[name] - gradients["ours"]).norm() / gradients["ours"].norm()
        print(f"  {name}: {seconds[name]:.2f} s, loss {loss:.3f}, gradient differs by {far:.1e}", flush=True)
    become(policy, "ours")
    return {name: round(seconds[name] / seconds["ours"], 2) for name in sides}


def become(policy: CausalLMPolicy, side: str) -> None:
    """Have the attention that a side wants."""
    policy.hf.set_attn_implementation(ATTENTION if side == "ours" else "sdpa")


def memory_of(side: str, args: argparse.Namespace, batch: Sequence[Episode]) -> float:
    """Peak bytes of one forward and backward pass above what a process has that did nothing else."""
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        pickle.dump(list(batch), file)
        file.flush()
        command = [sys.executable, __file__, "--dtype", args.dtype, "--memory_of", side, "--batch", file.name]
        command += ["--weights", args.weights] if args.weights else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_memory(args: argparse.Namespace) -> None:
    """The other process."""
    policy, batch = policy_of(args), pickle.loads(Path(args.batch).read_bytes())
    become(policy, args.memory_of)
    before = peak(policy.device, lambda: None)
    print(peak(policy.device, lambda: one_pass(policy, [batch], SIDES[args.memory_of])) - before)


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
            print(" ", compare(policy, batched(groups, per_pass), ["padded_action_logits"]))


def floor(policy: CausalLMPolicy, machine: Machine, unique: int, actions: int) -> float:
    """Seconds at least: forward, and the gradients of activations in the upper half where the adapters are."""
    inner, head = model_flops(policy)
    return (unique * inner * 1.5 + actions * head * 2) / machine.flops


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--per_pass", type=int, default=16, help="episodes per forward and backward pass")
    made.add_argument("--sweep", action="store_true")
    made.add_argument("--memory_of", help=argparse.SUPPRESS)
    made.add_argument("--batch", help=argparse.SUPPRESS)
    args: argparse.Namespace = made.parse_args()
    if args.memory_of:
        return print_memory(args)
    policy = policy_of(args)
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
    ratios = compare(policy, batches, ["padded_action_logits", "padded_full_logits"])
    memory = {side: memory_of(side, args, batches[0]) for side in SIDES}
    print("  peak of one pass:", ", ".join(f"{side} {value / 1e9:.2f} GB" for side, value in memory.items()))
    ratios["memory_full_logits"] = round(memory["padded_full_logits"] / memory["ours"], 2)
    check(args, [*groups[0][:3], *groups[-1][:2]])
    print(json.dumps({"ratios": ratios, "tokens_per_unique": round(computed / unique, 3), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
