"""Callbacks that write down what only the trainer sees; apart from the worlds, whose processes import no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from lit_agents.run.callbacks.token_log import trained_rows


class AdvantageSpy(Callback):
    """Writes the advantages of every row that is trained on, by the digest of its conversation.

    Args:
        path: a file of JSON lines.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with self._path.open("a") as file:
            pairs = [
                (part, b, row) for part in batch.parts for b, row in enumerate(trained_rows(part, trainer.global_step))
            ]
            for part, b, row in pairs:
                if part.policy_version >= 0:
                    values = part.advantages_BA[b][part.tree.mask_BA[b]].tolist()
                    noted = {"iteration": trainer.current_epoch + 1, "conversation": row["conversation"]}
                    file.write(json.dumps(noted | {"advantages": values}) + "\n")


class StepSpy(Callback):
    """Writes, for every optimizer step, what it cost: tokens of each part, bytes kept for the backward pass, sessions there are.

    Args:
        path: a file of JSON lines.
    """

    def __init__(self, path: str) -> None:
        self._path, self._kept = Path(path), 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._kept = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._count, lambda tensor: tensor)
        self._hooks.__enter__()

    def _count(self, tensor: torch.Tensor) -> torch.Tensor:
        self._kept += tensor.nbytes
        return tensor

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._hooks.__exit__(None, None, None)
        data = trainer.datamodule
        row = {
            "demonstrated": pl_module.demonstrated,
            "nodes": [len(part.tree.ids_S) for part in batch.parts],
            "kept": self._kept,
        }
        row |= {"sessions": len(data.stage._pool._sessions), "cache": data.engine.most_bytes}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
