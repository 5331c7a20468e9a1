"""Writing a checkpoint whole, reading it, and telling whether it belongs to what is configured, before any model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import Tensor

from lit_agents.errors import BadInput
from lit_agents.system.files import written_beside


class AtomicCheckpoints(TorchCheckpointIO):
    """A checkpoint appears whole or not at all: Lightning's own is copied if the temporary folder is on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside, then rename."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            # given a name, torch writes by itself, and a full disk is a RuntimeError
            with written_beside(target) as beside, beside.open("wb") as file:
                torch.save(checkpoint, file)
        except OSError as error:
            error.filename = error.filename or str(target)
            raise


def read_checkpoint(path: Path, flag: str = "--ckpt_path") -> dict[str, Any]:
    """A checkpoint's content, from plain tensors and values alone.

    Args:
        flag: that named it, if one did.

    Raises:
        BadInput: it cannot be read without running code in it.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # what torch raises on a file that is cut or is none of its own is not fixed
        reason = f"cannot be read as plain tensors ({type(error).__name__}: {str(error).partition(chr(10))[0]})."
        raise BadInput(f"{flag} {path}".strip(), reason, "Name a .ckpt file of a run folder.") from error


def refuse_other(checkpoint: dict[str, Any], identity: dict[str, Any], flag: str = "--ckpt_path") -> None:
    """Refuse a checkpoint of something else; needs no model.

    Args:
        checkpoint: see `read_checkpoint`.
        identity: what it must have been written with; see `AgentModule.identity`.
        flag: that named it.

    Raises:
        BadInput: no checkpoint of ours, another algorithm, other weights or adapters.
    """
    kept = checkpoint.get("lit_agents")
    if kept is None:
        raise BadInput(flag, "is not a checkpoint of lit_agents.", "Name a .ckpt of a run folder.")
    for key, mine in identity.items():
        if kept["identity"].get(key) != mine:
            reason = f"it was written with {key} {kept['identity'].get(key)}, this configuration has {mine}."
            raise BadInput(flag, reason, "Use the config.yaml of the run the checkpoint belongs to.")


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
