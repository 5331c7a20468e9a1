"""The policy: a causal language model, its chat format, and what of it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from lit_agents.errors import BadInput
from lit_agents.policy.attention import Attend, tree_attention
from lit_agents.policy.chat import ChatFormat
from lit_agents.policy.cpu_kernels import pack_frozen
from lit_agents.policy.hub import PACKAGED, find_weights, weights_hash
from lit_agents.policy.loading import config_of, load_model, read, shapes_of
from lit_agents.policy.logprobs import scored
from lit_agents.policy.lora import LoRA, add_adapters
from lit_agents.policy.non_finite import refuse_non_finite
from lit_agents.policy.positions import check_context, window
from lit_agents.policy.tree_check import kv_heads
from lit_agents.types import TokenTree

Weights = Mapping[str, Tensor]
"""A copy of everything trainable, by name."""


class ActionScores(NamedTuple):
    """What the model says about the action tokens of a token tree."""

    logprobs_BA: Tensor
    """Log-probability of each action token at the given temperature, nats; 0 on padding."""
    entropy_BA: Tensor
    """Entropy of the distribution it was drawn from, nats, no gradient; 0 on padding."""
    hidden_BAH: Tensor
    """Last hidden state just before each action token, for a value head."""
    last_BH: Tensor
    """Last hidden state after each episode's last token."""


class CausalLMPolicy(nn.Module):
    """A Hugging Face causal language model that acts in a chat.

    Args:
        weights: a local folder, a hub id, or ``packaged:SmolLM2-135M-Instruct``.
        dtype: of the frozen weights, or of all weights without ``lora``.
        lora: adapters to train; None trains every weight.
        system: the system message; None leaves it to the model's chat template.
        thinking: let a thinking model write its thoughts before each command.
        gradient_checkpointing: keep one activation per layer and compute the rest again in the backward pass.
        token_trees: compute what conversations share once. A model that cannot take part in it (a recurrent one, say) is found
            out when it is loaded and falls back to false, and says so.

    Raises:
        BadInput: from the constructor for settings that cannot work together, from `load` for the weights.
    """

    def __init__(
        self,
        weights: str = PACKAGED,
        dtype: Literal["float32", "bfloat16", "float64"] = "float32",
        lora: LoRA | None = None,
        system: str | None = None,
        thinking: bool = False,
        gradient_checkpointing: bool = False,
        token_trees: bool = True,
    ) -> None:
        super().__init__()
        if dtype == "bfloat16" and lora is None:
            reason = "with full fine-tuning every update below 1/256 of a weight is rounded away."
            way_out = "Use dtype float32 (with trainer.precision bf16-mixed for speed), or set policy lora."
            raise BadInput("policy.dtype=bfloat16", reason, way_out)
        self.weights, self.dtype, self.lora = weights, getattr(torch, dtype), lora
        self.system, self.thinking, self.gradient_checkpointing = system, thinking, gradient_checkpointing
        self.token_trees = self.takes_trees = token_trees
        self.mixed: torch.dtype | None = None
        self.model: nn.Module | None = None
        self.steps = 0
        """Optimizer steps behind its weights, for messages."""

    @cached_property
    def folder(self) -> Path:
        """Where the weights are; fetched on first use."""
        return find_weights(self.weights)

    @cached_property
    def chat(self) -> ChatFormat:
        """How messages become tokens. Loads the tokenizer alone."""
        from transformers import AutoTokenizer

        config_of(self.folder, self.weights)  # a model that cannot be trained is refused before its weights are read
        tokenizer = read(self.weights, lambda: AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False))
        return ChatFormat.from_tokenizer(tokenizer, self.system, self.thinking)

    def check_context(self, context: int) -> None:
        """Whether the model can take conversations of so many tokens, by its configuration alone; loads no weights.

        Raises:
            BadInput: it cannot.
        """
        check_context(config_of(self.folder, self.weights), self.weights, context, self.token_trees)

    def refuse_non_finite(self, logits: Tensor) -> None:
        """Refuse logits, or log-probabilities of tokens, that are not finite.

        Raises:
            NonFinite: with the optimizer step and the weight that is to blame.
        """
        refuse_non_finite(logits, self.hf, f"after {self.steps} optimizer steps")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the policy it is loaded into."""
        return {"weights": weights_hash(self.folder), "lora": asdict(self.lora) if self.lora else None}

    def load(self, device: str = "cpu") -> None:
        """Load the weights and put the adapters in; does nothing the second time. ``meta`` builds shapes only."""
        if self.model is not None:
            return
        if device == "meta":
            self.model = shapes_of(self.folder, self.weights, self.dtype)
        else:
            self.model, self.takes_trees = load_model(self.folder, self.weights, self.dtype, self.token_trees)
        if self.lora is not None:
            add_adapters(self.hf, self.lora)
            pack_frozen(self.hf)
        if self.gradient_checkpointing:
            name = "activation_checkpointing_enable"  # transformers renamed it after 5.19
            getattr(self.hf, name, self.hf.gradient_checkpointing_enable)({"use_reentrant": False})
        self.train()

    @property
    def hf(self) -> Any:
        """The transformers model."""
        if self.model is None:
            raise RuntimeError("CausalLMPolicy.load() has not been called")
        return self.model

    @property
    def config(self) -> Any:
        """The transformers configuration."""
        return self.hf.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast(torch.device, self.hf.get_input_embeddings().weight.device)

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def snapshot(self) -> Weights:
        """A copy of what is trained, e.g. to be the reference policy."""
        return {name: p.detach().clone() for name, p in self.trainable.items()}

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Be another policy for a while: the trained parameters take these values, then get their own back."""
        mine = {name: p.data for name, p in self.trainable.items()}
        try:
            for name, p in self.trainable.items():
                p.data = weights[name].to(p.device)
            yield
        finally:
            for name, p in self.trainable.items():
                p.data = mine[name]

    @contextmanager
    def in_full_precision(self) -> Iterator[None]:
        """Compute with the same weights in at least float32 for a while; takes the memory of a second copy."""
        mine, dtype, mixed = {name: p.data for name, p in self.named_parameters()}, self.dtype, self.mixed
        try:
            self.dtype, self.mixed = torch.promote_types(torch.float32, dtype), None
            for p in self.parameters():
                p.data = p.data.to(torch.promote_types(torch.float32, p.dtype))
            yield
        finally:
            self.dtype, self.mixed = dtype, mixed
            for name, p in self.named_parameters():
                p.data = mine[name]

    def compute_in(self, precision: str) -> None:
        """Follow the trainer's ``precision``, in sampling, scoring and evaluation alike.

        Raises:
            BadInput: one that would change the weights themselves, which have their ``dtype``.
        """
        mixed = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        meant = {"None": "32-true", "32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}.get(precision, precision)
        if meant not in mixed:
            reason = f"{precision} would change the weights, whose type is policy.dtype."
            raise BadInput("trainer.precision", reason, f"Use one of {', '.join(mixed)}.")
        self.mixed = mixed[meant]

    def precision(self) -> AbstractContextManager[Any]:
        """Sampler and trainer compute in the same precision: bfloat16 weights bring their adapters to bfloat16."""
        chosen = torch.bfloat16 if self.dtype == torch.bfloat16 else self.mixed
        return torch.autocast(self.device.type, chosen or torch.bfloat16, enabled=chosen is not None)

    def hidden(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """(S,) token ids and positions -> (S, H) last hidden states; ``attend`` says what each token sees."""
        limit = window(self.config)
        if limit is not None and len(positions) and int(positions.max()) >= limit:
            reason = f"a conversation is longer than the model's sliding window of {limit} tokens."
            raise BadInput("data.limits.context", reason, f"Lower it to {limit}, or set policy token_trees to false.")
        base = self.hf.base_model
        out = base(input_ids=ids[None], position_ids=positions[None], attend=attend, use_cache=False)
        return cast(Tensor, out.last_hidden_state[0])

    def hidden_of_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Conversations -> (R, T, H) last hidden states by the model's own attention, whatever on padding.

        Padded on the right, where nothing that comes before can see it.
        """
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.device)
        return cast(Tensor, self.hf.base_model(input_ids=ids, use_cache=False).last_hidden_state)

    def hidden_of_tree(self, tree: TokenTree) -> Tensor:
        """(S, H), in the type that is computed in."""
        if self.takes_trees:
            folds, kind = self.config.num_attention_heads // kv_heads(self.config), self.device.type
            compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype
            return self.hidden(tree.ids_S, tree.positions_S, tree_attention(tree, folds, compute))
        paths = [tree.path(leaf) for leaf in tree.leaves]
        hidden_RTH = self.hidden_of_rows([tree.ids_S[path].tolist() for path in paths])
        row_S = torch.zeros_like(tree.ids_S)
        for row, path in enumerate(paths):
            row_S[path] = row
        return hidden_RTH[row_S, tree.positions_S]

    def computed(self, tree: TokenTree) -> int:
        """Tokens that go through the model for a tree."""
        return len(tree.ids_S) if self.takes_trees else int((tree.positions_S[tree.leaves] + 1).sum())

    def logits(self, hidden: Tensor, temperature: float) -> Tensor:
        """(..., H) -> (..., V) in at least float32, divided by the temperature."""
        logits = self.hf.get_output_embeddings()(hidden)
        logits = logits.to(torch.promote_types(torch.float32, logits.dtype))
        return cast(Tensor, logits if temperature == 1 else logits / temperature)

    def score(self, tree: TokenTree, temperature: float) -> ActionScores:
        """Log-probabilities of a tree's action tokens; the LM head runs on those alone."""
        with self.precision():
            hidden_SH = self.hidden_of_tree(tree)
            hidden_UH = hidden_SH[tree.sources_U]
            logprobs_U, entropy_U = scored(lambda rows: self.logits(rows, temperature), hidden_UH, tree.targets_U)
        self.refuse_non_finite(logprobs_U.detach())
        return ActionScores(
            torch.where(tree.mask_BA, logprobs_U[tree.index_BA], 0.0),
            torch.where(tree.mask_BA, entropy_U[tree.index_BA], 0.0),
            hidden_UH[tree.index_BA],
            hidden_SH[tree.last_B],
        )
