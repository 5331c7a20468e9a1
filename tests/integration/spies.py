"""Callbacks that write down what only the trainer sees; apart from the worlds, whose processes import no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning import Callback

from lit_agents.callbacks.trained import trained_rows


class AdvantageSpy(Callback):
    """Writes the advantages of every row that is trained on, by the digest of its conversation.

    Args:
        path: a file of JSON lines.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path).absolute()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with self._path.open("a") as file:
            for b, row in enumerate(trained_rows(batch, trainer.global_step) if len(batch.tree.ids_S) else []):
                if batch.policy_version >= 0:
                    values = batch.advantages_BA[b][batch.tree.mask_BA[b]].tolist()
                    noted = {"iteration": trainer.current_epoch + 1, "conversation": row["conversation"]}
                    file.write(json.dumps(noted | {"advantages": values}) + "\n")
