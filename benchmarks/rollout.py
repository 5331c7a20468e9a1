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

import torch
from setting import Machine, Table, described, groups_of, model_flops, parser, policy_of, unique_tokens
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.transformers import TransformersEngine
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


def floor(policy: CausalLMPolicy, engine: TransformersEngine, machine: Machine, sampled: int, steps: int) -> float:
    """Seconds at least: every token through the layers once, every sampled one through the head, weights read every step."""
    inner, head = model_flops(policy)
    weights = (inner + head) / 2 * torch.empty(0, dtype=policy.dtype).element_size()
    compute = (engine.cost.computed_tokens * inner + sampled * head) / machine.flops
    return compute + steps * weights / machine.bytes


def with_vllm(table: Table, policy: CausalLMPolicy, size: int) -> float:
    """Seconds per turn through vLLM, which plays other episodes of the same games: its random numbers are its own."""
    from lit_agents.policy.engine.vllm import VLLMEngine

    engine = VLLMEngine()
    engine.attach(policy, len(table.jobs), table.limits.context)
    try:
        table.play(engine)  # starts it
        table.clock.seconds.clear()
        episodes = table.play(engine)
    finally:
        engine.close()
    print(f"vLLM: {table.clock.seconds['rollout']:.2f} s for {described(episodes, size)}")
    return table.clock.seconds["rollout"] / sum(len(e.turns) for e in episodes)


def measured(table: Table, engine: TransformersEngine) -> tuple[list[Episode], dict[str, float]]:
    """The second of two rollouts, and its seconds by part."""
    table.clock.watch(engine, "prefill", "_read")
    table.clock.watch(engine, "decode", "_say", "_step")
    table.play(engine)  # starts the environments, warms up
    table.clock.seconds.clear()
    engine.cost.computed_tokens = 0
    return table.play(engine), dict(table.clock.seconds)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--skip_generate", action="store_true", help="leave out `generate`, which takes minutes")
    args = made.parse_args()
    policy, engine = policy_of(args), TransformersEngine()
    table, machine = Table(args, policy), Machine.measured(policy.dtype)
    table.stage.attach(engine, policy)
    episodes, seconds = measured(table, engine)
    unique, sampled = (
        unique_tokens(groups_of(episodes, args.size)),
        sum(len(t.action_ids) for e in episodes for t in e.turns),
    )
    steps = sum(
        max(len(e.turns[k].action_ids) for e in episodes if len(e.turns) > k)
        for k in range(max(len(e.turns) for e in episodes))
    )
    print(described(episodes, args.size))
    print(machine)
    print(
        f"ours: {seconds['rollout']:.2f} s ({', '.join(f'{k} {v:.2f}' for k, v in seconds.items() if k != 'rollout')})"
    )
    print(
        f"floor: {floor(policy, engine, machine, sampled, steps):.2f} s for {engine.cost.computed_tokens} tokens, {steps} steps"
    )
    ratios = {}
    if not args.skip_generate:
        theirs = against_generate(policy, episodes, args.dtype) + seconds["environments"]
        ratios["naive_generate"] = theirs / seconds["rollout"]
    if importlib.util.find_spec("vllm"):
        ours = seconds["rollout"] / sum(len(e.turns) for e in episodes)
        ratios["vllm"] = with_vllm(table, policy, args.size) / ours
    table.stage.close()
    result = {
        "ratios": {name: round(value, 2) for name, value in ratios.items()},
        "tokens_per_unique": round(engine.cost.computed_tokens / unique, 3),
        "seconds": {part: round(value, 2) for part, value in seconds.items()},
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
