"""A second record of the tokens: not what was sampled, but what the trainer was given to learn from."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_agents.algorithm.base import AgentModule
from lit_agents.distributed import from_all_ranks
from lit_agents.run.folder import RunFolder
from lit_agents.system.hashing import digest, digest_floats
from lit_agents.system.run_lengths import run_lengths
from lit_agents.types import TokenBatch, TokenTree


def trained_rows(batch: TokenBatch, step: int, critic: bool = False, reference: bool = False) -> list[dict[str, Any]]:
    """What each row of a batch trains, read off the tensors alone.

    Args:
        step: optimizer steps of the stage so far.
        critic: note the critic's predictions and targets too.
        reference: note the reference policy's log-probabilities too.

    Returns:
        Per episode: the digest of all that was in sight in the end; ``runs``, the tokens with a weight in the loss as ``[place
        in their conversation, ids, digest of the tokens before them]`` per uninterrupted run of them; the digest of the
        log-probabilities they are held against; the version the batch says it was sampled with; ``advantages`` of the same tokens
        and, if asked for, ``values`` and ``returns``, and ``reference``, as in `lit_agents.system.run_lengths`.
    """
    tree = batch.tree
    sources_BA, ids_BA = tree.sources_U[tree.index_BA], tree.targets_U[tree.index_BA]
    columns = {"advantages": batch.advantages_BA}
    columns |= {"values": batch.values_BA, "returns": batch.returns_BA} if critic else {}
    columns |= {"reference": batch.ref_logprobs_BA} if reference else {}
    rows = []
    for b, last in enumerate(tree.last_B.tolist()):
        mask = batch.weights_BA[b] != 0  # every loss is a sum over these, whatever the tree says of its tokens
        rows.append(
            {
                "step": step,
                "version": batch.policy_version,
                "conversation": digest(tree.ids_S[tree.path(last)].tolist()),
                "runs": _runs(tree, sources_BA[b][mask], ids_BA[b][mask]),
                "logprobs": digest_floats(batch.old_logprobs_BA[b][mask].tolist()),
            }
            | {name: run_lengths(column_BA[b][mask].tolist()) for name, column_BA in columns.items()}
        )
    return rows


def _runs(tree: TokenTree, sources: Tensor, ids: Tensor) -> list[tuple[int, list[int], str]]:
    """Tokens one after the other, where each is the node that the next one comes after."""
    runs: list[tuple[int, list[int], str]] = []
    before = -1
    for source, token in zip(sources.tolist(), ids.tolist(), strict=True):
        if runs and _follows(tree, before, runs[-1][1][-1], source):
            runs[-1][1].append(token)
        else:
            path = tree.path(source)
            runs.append((len(path), [token], digest(tree.ids_S[path].tolist())))
        before = source
    return runs


def _follows(tree: TokenTree, before: int, token: int, source: int) -> bool:
    """Whether a node is this token, sampled after the node before it."""
    below = before < source < int(tree.ends_S[before])
    return (
        below
        and int(tree.positions_S[source]) == int(tree.positions_S[before]) + 1
        and int(tree.ids_S[source]) == token
    )


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
        assert isinstance(pl_module, AgentModule)
        needed = {"critic": pl_module.has_critic, "reference": bool(pl_module.kl.reward)}
        for part in batch.parts:
            self._rows += trained_rows(part, trainer.global_step, **needed)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write down what all ranks trained."""
        self._folder.add_trained(self._stage, trainer.current_epoch + 1, from_all_ranks(self._rows))
