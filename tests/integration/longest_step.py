"""One training step of SmolLM2 on 8 conversations of 2,048 tokens that share nothing; prints its tokens and peak bytes.

python -m tests.integration.longest_step [CONVERSATIONS_AT_ONCE, by default 2: a budget of 4,096 tokens]
"""

from __future__ import annotations

import sys

import torch

from lit_agents.algorithm.grpo import GRPO
from lit_agents.algorithm.micro_batches import total_loss
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA
from lit_agents.run.callbacks.memory import peak, worst_case


def main() -> None:
    policy = CausalLMPolicy(dtype="bfloat16", lora=LoRA(), gradient_checkpointing=True)
    policy.load()
    module = GRPO(policy)
    at_once = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    parts = worst_case(at_once, 16, 2048, 24, policy.config.vocab_size).parts * (8 // at_once)
    parameters = list(policy.trainable.values())
    optimizer = torch.optim.AdamW(parameters)

    def step() -> None:
        module._expected_version = -1
        total_loss(module._loss_of_part, parts, parameters).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    print(sum(len(part.tree.ids_S) for part in parts), int(peak(policy.device, step)))


if __name__ == "__main__":
    main()
