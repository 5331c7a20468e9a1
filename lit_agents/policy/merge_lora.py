"""A policy's weights as those of a plain model: whole matrices, adapters added to the ones they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lit_agents.policy.causal_lm import CausalLMPolicy

BASE = "base_layer."


@torch.no_grad()
def folded(policy: CausalLMPolicy, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Every parameter under its name in the checkpoint, on the CPU; W + scale B A is computed in float32 and rounded once."""
    for name, parameter in policy.hf.named_parameters():
        if ".lora_" in name:
            continue
        value = parameter.detach()
        owner, adapted, kind = name.rpartition(BASE)
        if adapted and kind == "weight":
            layer: Any = policy.hf.get_submodule(owner.removesuffix("."))
            for adapter in layer.active_adapters:
                value = value.float() + layer.get_delta_weight(adapter).float()
        yield name.replace(BASE, ""), value.to("cpu", dtype).contiguous()
