"""Writing a model's folder so that what goes wrong is a file's error, and whoever may read one file may read all."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
