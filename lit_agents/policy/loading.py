"""From a folder to a model: without running code that is in it, and with our attention if the model can take token trees."""

from __future__ import annotations

import errno
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lit_agents.errors import BadInput
from lit_agents.policy.attention import ATTENTION, register
from lit_agents.policy.non_finite import refuse_non_finite
from lit_agents.policy.tree_check import why_no_trees

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SLOW = "so every conversation is computed in full for each new token, many times slower"


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
    if token_trees:
        register()
        try:
            model = _complete(folder, name, dtype, attn_implementation=ATTENTION)
            trouble = why_no_trees(model)
        except _Incomplete:
            raise
        except BadInput as error:
            trouble = error.reason
        if not trouble:
            refuse_other_logits(model, name)
            return model, True
        print(f"{name} cannot take token trees, {_SLOW}: {trouble}", file=sys.stderr)
    model = _complete(folder, name, dtype)
    refuse_other_logits(model, name)
    return model, False


class _Incomplete(BadInput):
    """Of weights; another attention does not help."""


def _complete(folder: Path, name: str, dtype: torch.dtype, **how: Any) -> Any:
    """A model whose every weight is the folder's; transformers by itself would draw those that are missing at random.

    Raises:
        BadInput: it cannot be loaded, or the folder's tensors are not exactly those of the model.
    """
    from transformers import AutoModelForCausalLM

    models: Any = AutoModelForCausalLM
    how |= {"config": config_of(folder, name), "dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
    how |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # so that we are told their names
    model, found = read(name, lambda: models.from_pretrained(folder, **how))
    missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])  # tied matrices need only one
    misshapen = sorted(f"{key} {list(a)} for {list(b)}" for key, a, b in found["mismatched_keys"])
    problems = {
        "has no tensor for": missing,
        "has tensors that are none of this model's:": unexpected,
        "has tensors of another shape:": misshapen,
    }
    wrong = [f"{what} {_listed(keys)}" for what, keys in problems.items() if keys]
    if wrong:
        reason = f"{' and '.join(wrong)}."
        raise _Incomplete(
            name, reason, "Get the folder again, or write it anew with save_pretrained of the model it is of."
        )
    return model


def _listed(keys: list[str]) -> str:
    """The first few of many."""
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


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
        BadInput: the model caps or scales its logits, or computes otherwise in training, or its logits are not finite.
    """
    ids = torch.arange(3, 19, device=model.device)[None]
    ours = model.config._attn_implementation
    if ours == ATTENTION:
        model.set_attn_implementation("sdpa")
    theirs = model(input_ids=ids, use_cache=False).logits.float()
    refuse_non_finite(theirs, model, name)
    model.train()
    trained = model(input_ids=ids, use_cache=False).logits.float()
    model.eval()
    head, hidden = model.get_output_embeddings(), model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    mine = head(hidden.to(head.weight.dtype)).float()  # some keep hidden states in float32
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


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """``save_pretrained``, for whoever may read the other files too.

    Raises:
        OSError: as for any other file that cannot be written.
    """
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # a full disk, for one
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(folder)) from error
    for file in folder.glob("*.safetensors"):  # which safetensors makes for its owner alone
        shutil.copymode(folder / "config.json", file)
