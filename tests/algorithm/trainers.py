"""A quiet Trainer on the CPU for tests."""

from __future__ import annotations

from typing import Any

import pytest
from lightning import Trainer

QUIET = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),  # lightning 2.6 on torch 2.13
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined:UserWarning"),  # on purpose
    pytest.mark.filterwarnings("ignore:The .*_dataloader. does not have many workers:UserWarning"),  # on purpose
    pytest.mark.filterwarnings(
        "ignore:You have overridden `transfer_batch_to_device` in `LightningModule`:UserWarning"
    ),
]
"""What Lightning says in every run, and cannot be helped."""


def trainer(**settings: Any) -> Trainer:
    """One epoch on the CPU that writes nothing."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**({"accelerator": "cpu", "devices": 1, "max_epochs": 1} | quiet | settings))
