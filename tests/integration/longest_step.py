"""One training step of SmolLM2 on 8 conversations of 2,048 tokens that share nothing; prints its peak memory in bytes."""

from __future__ import annotations

import torch

from lit_agents.algorithm.accumulate import total_loss
from lit_agents.algorithm.grpo import GRPO
from lit_agents.callbacks.memory import peak, worst_case
from lit_agents.policy.causal_lm import CausalLMPolicy, LoRA


def main() -> None:
    policy = CausalLMPolicy(dtype="bfloat16", lora=LoRA(), gradient_checkpointing=True)
    policy.load()
    module = GRPO(policy)
    minibatch = worst_case(8, 16, 2048, 24, policy.config.vocab_size)
    parameters = list(policy.trainable.values())
    optimizer = torch.optim.AdamW(parameters)

    def step() -> None:
        module._expected_version = -1
        total_loss(module._loss_of_part, minibatch.parts, parameters).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    print(sum(len(part.tree.ids_S) for part in minibatch.parts), int(peak(policy.device, step)))


if __name__ == "__main__":
    main()
