"""A whole rollout of TextWorld games: our engine against transformers' `generate`, and against vLLM where it is installed.

    python benchmarks/rollout.py [--groups 8] [--size 8] [--turns 8]

The usual loop gives the whole conversation to `generate` in every turn, padded on the left. Here it reads the conversations
our engine had, and is made to say what was said then, so that both sides do the same work; their log-probabilities are
compared. It gets the time of the environments as measured with our engine. The last line is one JSON object.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Sequence
from statistics import median

import torch
from setting import Machine, Table, described, groups_of, model_flops, parser, policy_of, unique_tokens
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.base import Engine
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.types import Episode


class Repeating(LogitsProcessor):
    """Makes `generate` say given actions, and notes how likely it thought them."""

    def __init__(self, actions: Sequence[Sequence[int]], prompt: int) -> None:
        self.actions, self.prompt = actions, prompt
        self.logprobs: list[list[float]] = [[] for _ in actions]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        place = input_ids.shape[1] - self.prompt
        tokens = [action[min(place, len(action) - 1)] for action in self.actions]  # after its end a row's is ignored
        logprobs = torch.log_softmax(scores.float(), dim=-1)
        for row, (action, token) in enumerate(zip(self.actions, tokens, strict=True)):
            if place < len(action):
                self.logprobs[row].append(float(logprobs[row, token]))
        said = torch.tensor(tokens, device=scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(1, said, 0.0)


@torch.no_grad()
def naive(policy: CausalLMPolicy, episodes: Sequence[Episode]) -> tuple[float, list[float]]:
    """Seconds that `generate` takes for all turns, and how far its log-probabilities are from the sampled ones."""
    model, differences, seconds = policy.hf, [], 0.0
    ours = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    model.eval()
    for number in range(max(len(e.turns) for e in episodes)):
        acting = [e for e in episodes if len(e.turns) > number]
        prompts, actions = [], [e.turns[number].action_ids for e in acting]
        for e in acting:
            before = [i for turn in e.turns[:number] for i in (*turn.observation_ids, *turn.action_ids)]
            prompts.append([*before, *e.turns[number].observation_ids])
        begun = time.perf_counter()
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        repeating = Repeating(actions, longest)
        with policy.precision():
            model.generate(
                ids, attention_mask=mask, logits_processor=LogitsProcessorList([repeating]), do_sample=False,
                max_new_tokens=max(map(len, actions)), eos_token_id=policy.chat.end_id, pad_token_id=policy.chat.end_id,
            )  # fmt: skip
        seconds += time.perf_counter() - begun
        for e, theirs in zip(acting, repeating.logprobs, strict=True):
            differences += [abs(a - b) for a, b in zip(e.turns[number].action_logprobs, theirs, strict=True)]
    model.set_attn_implementation(ours)
    model.train()
    return seconds, differences


def against_generate(policy: CausalLMPolicy, episodes: Sequence[Episode], dtype: str) -> float:
    """Seconds; stops where the two sides disagree."""
    seconds, differences = naive(policy, episodes)
    gap = sum(differences) / len(differences)
    print(
        f"generate: {seconds:.2f} s; log-probabilities differ by {gap:.4f} on average, {max(differences):.3f} at most"
    )
    if gap > (0.05 if dtype == "bfloat16" else 1e-4):
        raise SystemExit("the two sides disagree")
    return seconds


def floor(policy: CausalLMPolicy, computed: int, machine: Machine, episodes: Sequence[Episode]) -> float:
    """Seconds at least: every token through the layers once, every sampled one through the head, the weights read for every token
    of the episode that says most."""
    inner, head = model_flops(policy)
    weights = (inner + head) / 2 * torch.empty(0, dtype=policy.dtype).element_size()
    said = [sum(len(turn.action_ids) for turn in e.turns) for e in episodes]
    compute = (computed * inner + sum(said) * head) / machine.flops
    return compute + max(said) * weights / machine.bytes


def against_vllm(table: Table, policy: CausalLMPolicy, mine: TransformersEngine, size: int, rounds: int) -> float:
    """How many times faster ours is per turn: medians of rollouts taken in turns, since the machine has other work too.

    vLLM plays other episodes of the same games: its random numbers are its own.
    """
    from lit_agents.policy.engine.vllm import VLLMEngine

    other = VLLMEngine()
    other.attach(policy, len(table.jobs), table.limits.context)
    seconds: dict[Engine, list[float]] = {mine: [], other: []}
    try:
        table.play(other)  # starts it
        for _ in range(rounds):
            for engine, found in seconds.items():
                table.clock.clear()
                episodes = table.play(engine)
                found.append(table.clock.seconds["rollout"] / sum(len(e.turns) for e in episodes))
    finally:
        other.close()
    print(f"vLLM: {described(episodes, size)}")
    for name, found in zip(("ours", "vLLM"), seconds.values(), strict=True):
        print(f"{name}, ms per turn: {', '.join(f'{1000 * x:.1f}' for x in found)}")
    return median(seconds[other]) / median(seconds[mine])


def measured(table: Table, engine: TransformersEngine) -> tuple[list[Episode], dict[str, float]]:
    """The second of two rollouts, and its seconds by part; prefill computes the newest tokens of actions under way too."""
    table.clock.watch(engine, "prefill", "_read")
    table.clock.watch(engine, "decode", "_say", "_step")
    table.clock.watch(engine, "step", "_step")
    table.play(engine)  # starts the environments, warms up
    table.clock.clear()
    engine.cost.computed_tokens = 0
    episodes = table.play(engine)
    return episodes, {part: table.clock.seconds[part] for part in ("environments", "prefill", "decode", "rollout")}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--skip_generate", action="store_true", help="leave out `generate`, which takes minutes")
    made.add_argument("--rounds", type=int, default=5, help="rollouts of each side against vLLM")
    args = made.parse_args()
    policy, engine = policy_of(args), TransformersEngine()
    table, machine = Table(args, policy), Machine.measured(policy.dtype)
    table.stage.attach(engine, policy)
    episodes, seconds = measured(table, engine)
    computed, unique = engine.cost.computed_tokens, unique_tokens(groups_of(episodes, args.size))
    print(described(episodes, args.size))
    print(machine)
    print(
        f"ours: {seconds['rollout']:.2f} s ({', '.join(f'{k} {v:.2f}' for k, v in seconds.items() if k != 'rollout')})"
    )
    passes = [table.clock.calls[part] for part in ("prefill", "step")]
    print(f"{computed} tokens computed in {passes[0]} passes of prefill and {passes[1]} of decoding")
    print(f"floor: {floor(policy, computed, machine, episodes):.2f} s")
    ratios = {}
    if not args.skip_generate:
        theirs = against_generate(policy, episodes, args.dtype) + seconds["environments"]
        ratios["naive_generate"] = theirs / seconds["rollout"]
    if importlib.util.find_spec("vllm"):
        ratios["vllm"] = against_vllm(table, policy, engine, args.size, args.rounds)
    table.stage.close()
    result = {
        "ratios": {name: round(value, 2) for name, value in ratios.items()},
        "tokens_per_unique": round(computed / unique, 3),
        "seconds": {part: round(value, 2) for part, value in seconds.items()},
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
