"""Low-rank adapters: what of a model is trained when not all of it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from lit_agents.errors import BadInput

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (peft) instead of full fine-tuning; kept in float32 whatever the weights are in."""

    rank: int = 16
    """Rank of the update of each matrix."""
    alpha: int = 32
    """The update is scaled by alpha / rank."""
    targets: tuple[str, ...] = LINEARS
    """Names of the linear layers that get one."""
    last_layers: int | None = None
    """Only in this many layers, counted from the output; the backward pass ends below them. None: in all."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.rank < 1:
            reason = "an adapter needs a rank of at least 1."
            raise BadInput(f"policy.lora.rank={self.rank}", reason, "Set it to 8 or 16.")
        if self.alpha < 1:
            reason = "an adapter that is multiplied by 0 or less does not learn what it is taught."
            raise BadInput(f"policy.lora.alpha={self.alpha}", reason, "Set it to twice the rank.")
        if not self.targets:
            reason = "no linear layer would have an adapter, so nothing would be trained."
            raise BadInput("policy.lora.targets", reason, "Leave it out for all, or name some, e.g. [q_proj, v_proj].")
        if self.last_layers is not None and self.last_layers < 1:
            reason = "no layer would have an adapter."
            raise BadInput(f"policy.lora.last_layers={self.last_layers}", reason, "Set it to null for all layers.")


def add_adapters(model: Any, lora: LoRA) -> None:
    """Freeze a transformers model and put adapters into it; they begin as if they were not there.

    Raises:
        BadInput: one of the targets is the name of no layer, or of one whose matrix the embeddings share.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    there = sorted(
        {name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    )
    if unknown := [name for name in lora.targets if name not in there]:
        reason = f"{', '.join(unknown)} is no linear layer of this model; it has {', '.join(there)}."
        raise BadInput("policy.lora.targets", reason, "Name those that are to have an adapter.")
    if tied := [name for name in lora.targets if name in _shared_with_embeddings(model)]:
        reason = (
            f"{tied[0]} has the matrix of the embeddings, so no plain model (vLLM's, an export) could have its adapter."
        )
        raise BadInput("policy.lora.targets", reason, f"Leave {tied[0]} out.")
    count = model.config.num_hidden_layers
    chosen = None if lora.last_layers is None else list(range(max(0, count - lora.last_layers), count))
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), layers_to_transform=chosen
    )
    model.requires_grad_(False)
    inject_adapter_in_model(config, model)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.forward = partial(_adapted, layer)  # type: ignore[attr-defined]
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.promote_types(torch.float32, model.dtype))


def _shared_with_embeddings(model: Any) -> list[str]:
    """Names of the linear layers without a matrix of their own: of many small models, the LM head."""
    matrix = model.get_input_embeddings().weight
    linears = [(name, m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    return [name.rpartition(".")[2] for name, linear in linears if linear.weight is matrix]


def _adapted(layer: Any, x: Tensor) -> Tensor:
    """A linear layer with its adapter, as in peft, with the factor on the few numbers between the two small matrices.

    peft's own forward pass takes a fifth of a decoding step: it goes to float32 and back, and over the output twice.
    """
    inner = layer.lora_A["default"](x) * layer.scaling["default"]
    return cast(Tensor, layer.base_layer(x) + layer.lora_B["default"](inner))
