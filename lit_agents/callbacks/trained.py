"""A second record of the tokens: not what was sampled, but what the trainer was given to learn from."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_agents.rollout.digest import digest, digest_floats
from lit_agents.rollout.ranks import from_all_ranks
from lit_agents.run_folder import RunFolder
from lit_agents.types import TokenBatch


def trained_rows(batch: TokenBatch, step: int) -> list[dict[str, Any]]:
    """What each row of a batch trains, read off the tensors alone.

    Args:
        step: optimizer steps of the stage so far.

    Returns:
        Per episode: digest and length of its conversation; ``runs``, the tokens with a weight in the loss as ``[place in the
        conversation, ids]`` per uninterrupted run of them; the digest of the log-probabilities they are held against; the
        version the batch says it was sampled with.
    """
    tree = batch.tree
    after_S = tree.positions_S + 1  # a token sampled after a node stands one place further
    places_BA, ids_BA = after_S[tree.sources_U][tree.index_BA], tree.targets_U[tree.index_BA]
    rows = []
    for b, last in enumerate(tree.last_B.tolist()):
        path = torch.nonzero(tree.ends_S[: last + 1] > last).squeeze(1)  # the last node and all its ancestors
        mask = batch.weights_BA[b] != 0  # every loss is a sum over these, whatever the tree says of its tokens
        rows.append(
            {
                "step": step,
                "version": batch.policy_version,
                "conversation": digest(tree.ids_S[path].tolist()),
                "tokens": len(path),
                "runs": _runs(places_BA[b][mask], ids_BA[b][mask]),
                "logprobs": digest_floats(batch.old_logprobs_BA[b][mask].tolist()),
            }
        )
    return rows


def _runs(places: Tensor, ids: Tensor) -> list[tuple[int, list[int]]]:
    runs: list[tuple[int, list[int]]] = []
    for place, token in zip(places.tolist(), ids.tolist(), strict=True):
        if runs and runs[-1][0] + len(runs[-1][1]) == place:
            runs[-1][1].append(token)
        else:
            runs.append((place, [token]))
    return runs


class TrainedTokens(Callback):
    """Writes ``trained.jsonl``, for `lit_agents.audit` to hold against ``episodes.jsonl``: a line per episode and pass.

    The rows are read in ``on_train_batch_start``, from what ``training_step`` is given next.
    """

    def __init__(self, folder: RunFolder, stage: str) -> None:
        self._folder, self._stage = folder, stage
        self._rows: list[dict[str, Any]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A new iteration."""
        self._rows = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note a minibatch."""
        for part in batch.parts:
            self._rows += trained_rows(part, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write down what all ranks trained."""
        self._folder.add_trained(self._stage, trainer.current_epoch + 1, from_all_ranks(self._rows))
