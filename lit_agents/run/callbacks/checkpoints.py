"""Checkpoints of a run folder that may be moved, copied or mounted elsewhere before the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class MovableCheckpoint(ModelCheckpoint):
    """Lightning forgets in another folder which checkpoint was the best one so far, and the next one takes its place."""

    @property
    def state_key(self) -> str:
        """That of a `ModelCheckpoint`."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The files of the same names where the folder is now."""
        names = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: self._here(state_dict[name]) for name in names}
        best = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath})

    def _here(self, path: str) -> str:
        return str(Path(self.dirpath or "") / Path(path).name) if path else path


class KeptWeights(ModelCheckpoint):
    """``step=<optimizer steps>.ckpt``; a class of its own, since Lightning tells checkpoints apart by class and interval."""

    @staticmethod
    def every(iterations: int, folder: Path) -> list[KeptWeights]:
        """One that keeps the weights after every so many iterations, or none for 0."""
        options: Any = {"save_top_k": -1, "save_weights_only": True, "save_on_train_epoch_end": True}
        options["enable_version_counter"] = False  # a resumed run writes the same files again
        return [KeptWeights(folder, "{step}", every_n_epochs=iterations, **options)] if iterations else []


class LastValidated(Callback):
    """Without it what the last episodes taught could not be chosen: iterations need not be a multiple of the interval."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning looks at the interval at the end of every epoch."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1
