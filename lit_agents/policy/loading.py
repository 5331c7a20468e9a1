"""From a folder to a model: without running code that is in it, and with our attention if the model can take token trees."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_agents.errors import BadInput
from lit_agents.policy.attention import ATTENTION, TreeAttention, register
from lit_agents.types import TokenTree


def read(name: str, load: Callable[[], Any]) -> Any:
    """What is in a model's folder, without running any code of it.

    Raises:
        BadInput: it comes with code of its own, or cannot be read.
    """
    from safetensors import SafetensorError

    try:
        return load()
    except (ValueError, OSError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            reason = "comes with code of its own, which would have to be run to load it."
            raise BadInput(name, reason, "Choose a model whose architecture transformers itself knows.") from error
        reason = f"cannot be loaded ({type(error).__name__}: {str(error)[:300]})."
        raise BadInput(
            name, reason, "Load it once with transformers and write it again with save_pretrained."
        ) from error


def load_model(folder: Path, name: str, dtype: torch.dtype, token_trees: bool) -> tuple[Any, bool]:
    """The model, and whether it takes token trees; one that cannot gets its own attention, and a line on stderr says so.

    Raises:
        BadInput: it cannot be loaded, or does something to its logits that we would not do.
    """
    from transformers import AutoModelForCausalLM

    models: Any = AutoModelForCausalLM
    how = {"config": config_of(folder, name), "dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
    if token_trees:
        register()
        try:
            model = read(name, lambda: models.from_pretrained(folder, attn_implementation=ATTENTION, **how))
            trouble = why_no_trees(model)
        except BadInput as error:
            trouble = error.reason
        if not trouble:
            refuse_other_logits(model, name)
            return model, True
        print(f"{name} cannot take token trees, so every conversation is computed in full: {trouble}", file=sys.stderr)
    model = read(name, lambda: models.from_pretrained(folder, **how))
    refuse_other_logits(model, name)
    return model, False


def config_of(folder: Path, name: str) -> Any:
    """A model's configuration with every rate of dropout at 0: sampler, trainer and reference must be one function."""
    from transformers import AutoConfig

    config: Any = read(name, lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False))
    if (quantised := getattr(config, "quantization_config", None)) is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        reason = f"its weights are quantised ({method or 'by a method it does not name'}), which cannot be trained."
        raise BadInput(name, reason, "Choose the same model in bfloat16 or float32.")
    for part in (config, config.get_text_config()):
        for key, value in list(vars(part).items()):
            if "drop" in key and isinstance(value, float):
                setattr(part, key, 0.0)
    return config


@torch.no_grad()
def refuse_other_logits(model: Any, name: str) -> None:
    """Logits are computed from hidden states where they are needed, so nothing may come behind the LM head.

    Raises:
        BadInput: the model caps or scales its logits, or computes otherwise in training.
    """
    ids = torch.arange(3, 19, device=model.device)[None]
    ours = model.config._attn_implementation
    if ours == ATTENTION:
        model.set_attn_implementation("sdpa")
    theirs = model(input_ids=ids, use_cache=False).logits.float()
    model.train()
    trained = model(input_ids=ids, use_cache=False).logits.float()
    model.eval()
    mine = model.get_output_embeddings()(model.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
    if ours == ATTENTION:
        model.set_attn_implementation(ours)
    if not torch.allclose(mine, theirs, rtol=1e-4, atol=1e-6):  # bit for bit in fact
        reason = "does more to its logits than its LM head (a cap or a scale), which would be left out here."
        raise BadInput(name, reason, "Choose another model.")
    if not torch.allclose(trained, theirs, rtol=1e-4, atol=1e-6):
        reason = "computes otherwise in training than in sampling (noise, or a dropout that its configuration does not name)."
        raise BadInput(name, reason, "Choose another model.")


def shapes_of(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """The model on the meta device: shapes only, taken to be able to take trees."""
    from transformers import AutoModelForCausalLM

    models: Any = AutoModelForCausalLM
    register()
    with torch.device("meta"):
        config = config_of(folder, name)
        return models.from_config(config, dtype=dtype, attn_implementation=ATTENTION, trust_remote_code=False)


def kv_heads(config: Any) -> int:
    """Key heads of a layer."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def window(config: Any) -> int | None:
    """Tokens a token may look back in a layer with a sliding window; token trees know none, so they must end before it."""
    size = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    return None if size is None or (kinds and "sliding_attention" not in kinds) else int(size)


@torch.no_grad()
def why_no_trees(model: Any) -> str:
    """What stands against token trees; nothing if two conversations that begin alike are computed beside each other as apart.

    Asked twice, within the rounding of the model's numbers: other words in the one conversation change nothing in the other,
    and a conversation alone comes out as with the model's own attention.
    """
    shared, length = 6, 16
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.randint(vocabulary, (3, length), generator=torch.Generator().manual_seed(0))
    ids[:, :shared] = ids[0, :shared]
    ids[1, shared], ids[2, shared] = (ids[0, shared] + 1) % vocabulary, (ids[0, shared] + 2) % vocabulary
    config = model.config
    try:
        if (limit := window(config)) is not None and limit <= length:
            return f"its sliding window is {limit} tokens"
        folds = config.num_attention_heads // kv_heads(config)
        beside, other = (_second_of_two(model, folds, ids[[first, 2]], shared) for first in (0, 1))
        alone = _forward(model, ids[2], torch.arange(length), TreeAttention(_tree(ids[2:], length), folds, model.dtype))
        ours = model.config._attn_implementation
        model.set_attn_implementation("sdpa")
        theirs = model.base_model(input_ids=ids[2:].to(model.device), use_cache=False).last_hidden_state[0]
        model.set_attn_implementation(ours)
        pairs = {"another conversation is seen": (other, beside), "attention differs": (alone, theirs)}
        pairs["a conversation differs from itself alone"] = (beside, alone[shared:])
    except Exception as error:  # whatever it is, the model has not shown that it can
        return f"{type(error).__name__}: {str(error)[:200]}"
    tolerance = 3e-5 if torch.finfo(model.dtype).eps < 1e-4 else 0.06
    far = {what: float((a.double() - b.double()).norm() / b.double().norm()) for what, (a, b) in pairs.items()}
    return next((f"{what}, by {by:.1e}" for what, by in far.items() if not by < tolerance), "")


def _tree(ids: Tensor, shared: int) -> TokenTree:
    """Two conversations, or one, that share their first tokens."""
    own = ids.shape[1] - shared
    size = shared + own * len(ids)
    nodes = torch.arange(size)
    ends = torch.where(nodes < shared, size, shared + ((nodes - shared) // max(own, 1) + 1) * own)
    flat = torch.cat([ids[0, :shared], ids[:, shared:].reshape(-1)])
    positions = torch.where(nodes < shared, nodes, shared + (nodes - shared) % max(own, 1))
    none = torch.zeros(0, dtype=torch.long)
    return TokenTree(flat, positions, ends, none, none, none[None], none[None].bool(), none, ids.numel())


def _second_of_two(model: Any, folds: int, ids: Tensor, shared: int) -> Tensor:
    tree = _tree(ids, shared).to(model.device)
    attend = TreeAttention(tree, folds, model.dtype, block=4)
    return _forward(model, tree.ids_S, tree.positions_S, attend)[-(ids.shape[1] - shared) :]


def _forward(model: Any, ids: Tensor, positions: Tensor, attend: TreeAttention) -> Tensor:
    given = {"input_ids": ids[None].to(model.device), "position_ids": positions[None].to(model.device)}
    hidden: Tensor = model.base_model(**given, attend=attend, use_cache=False).last_hidden_state[0]
    return hidden
