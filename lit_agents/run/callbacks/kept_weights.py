"""Weights of many iterations, for `lit_agents.audit` to compute log-probabilities with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class KeptWeights(ModelCheckpoint):
    """``step=<optimizer steps>.ckpt``; a class of its own, since Lightning tells checkpoints apart by class and interval."""

    @staticmethod
    def every(iterations: int, folder: Path) -> list[KeptWeights]:
        """One that keeps the weights after every so many iterations, or none for 0."""
        options: Any = {"save_top_k": -1, "save_weights_only": True, "save_on_train_epoch_end": True}
        options["enable_version_counter"] = False  # a resumed run writes the same files again
        return [KeptWeights(folder, "{step}", every_n_epochs=iterations, **options)] if iterations else []
