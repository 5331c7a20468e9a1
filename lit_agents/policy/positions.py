"""How long a conversation a model can take, read from its configuration: its positions, their scaling, its sliding window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lit_agents.errors import BadInput

FLAG = "data.limits.context"


def check_context(config: Any, name: str, context: int, token_trees: bool) -> None:
    """Refuse conversations that are longer than the model can take.

    Args:
        config: the transformers configuration.
        name: of the model, for the message.
        context: tokens of the longest conversation, actions included.
        token_trees: whether conversations are computed as trees, which know no sliding window.

    Raises:
        BadInput: by the flag to lower.
    """
    config = config.get_text_config()
    found = [_fixed_until(rope, config) for rope in _ropes(config)]
    varies = [limit for limit in found if limit is not None]
    if varies and context > min(varies):
        reason = (
            f"{context} tokens; beyond {min(varies)} {name} rescales all positions by the length of what is computed "
            "together (dynamic RoPE), so sampling and training would be two functions."
        )
        raise BadInput(FLAG, reason, f"Lower it to {min(varies)}, or choose another model.")
    most = _positions(config)
    if most is not None and context > most:
        reason = f"{context} tokens, but {name} has {most} positions (max_position_embeddings)."
        raise BadInput(FLAG, reason, f"Lower it to {most}, set data.limits.window, or choose another model.")
    limit = window(config)
    if token_trees and limit is not None and context > limit:
        reason = f"{context} tokens, but {name} has a sliding window of {limit} tokens, which token trees do not have."
        raise BadInput(FLAG, reason, f"Lower it to {limit}, or set policy token_trees to false.")


def window(config: Any) -> int | None:
    """Tokens a token may look back in a layer with a sliding window; token trees know none, so they must end before it."""
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    sizes = []
    for kind, key in (("sliding_attention", "sliding_window"), ("chunked_attention", "attention_chunk_size")):
        size = getattr(config, key, None)
        if size is not None and (not kinds or kind in kinds):
            sizes.append(int(size))
    return min(sizes, default=None)


def _ropes(config: Any) -> Iterator[Mapping[str, Any]]:
    """The rotary embeddings' parameters; some models have one set for each kind of layer."""
    given = getattr(config, "rope_parameters", None) or {}
    yield from [given] if "rope_type" in given else [each for each in given.values() if isinstance(each, Mapping)]


def _fixed_until(rope: Mapping[str, Any], config: Any) -> int | None:
    """Tokens up to which positions mean the same whatever the length; None for any."""
    kind = str(rope.get("rope_type", ""))
    if "dynamic" in kind:
        return int(config.max_position_embeddings)  # transformers begins to rescale there
    return int(rope["original_max_position_embeddings"]) if kind == "longrope" else None


def _positions(config: Any) -> int | None:
    """Positions of the model; a scaled rotary embedding may have more than its configuration's number for them."""
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    stretched = [
        int(rope["factor"] * rope["original_max_position_embeddings"])
        for rope in _ropes(config)
        if rope.get("factor") and rope.get("original_max_position_embeddings")
    ]
    return max([most, *stretched])
