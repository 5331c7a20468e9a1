"""Whether a checkpoint holds exactly the weights that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_agents.errors import BadInput


def refuse_incomplete(checkpoint: dict[str, Any], trained: Mapping[str, Tensor], flag: str = "--ckpt_path") -> None:
    """Refuse a checkpoint that does not hold exactly the weights that are trained: what is loaded leaves out what is not there.

    Args:
        checkpoint: see `read_checkpoint`.
        trained: by their names in the checkpoint. What the checkpoint has of other parts than these is none of their business.
        flag: that named it.

    Raises:
        BadInput: some are missing, of another shape, or the checkpoint has more of the same part.
    """
    there = checkpoint["state_dict"]
    parts = {name.partition(".")[0] for name in trained}
    problems = {
        "does not hold": [name for name in trained if name not in there],
        "has another shape of": [name for name, p in trained.items() if name in there and there[name].shape != p.shape],
        "holds what is not trained here:": [n for n in there if n.partition(".")[0] in parts and n not in trained],
    }
    for what, names in problems.items():
        if names:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            reason = f"{what} {names[0]}{more}, of {len(trained)} weights that are trained."
            raise BadInput(flag, reason, "Use the config.yaml of the run the checkpoint belongs to.")
