"""Where a budget says when RL ends, its last iteration is validated too."""

from __future__ import annotations

from lightning import Callback, LightningModule, Trainer


class LastValidated(Callback):
    """Without it what the last episodes taught could not be chosen: iterations need not be a multiple of the interval."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning looks at the interval at the end of every epoch."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1
