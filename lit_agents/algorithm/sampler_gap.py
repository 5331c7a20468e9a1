"""How far the sampler's log-probabilities are from the trainer's: another engine, another precision, a policy that moved on."""

from __future__ import annotations

from torch import Tensor

from lit_agents.algorithm import losses
from lit_agents.algorithm.metrics import Tally
from lit_agents.types import TokenBatch


def compare(logprobs_BA: Tensor, batch: TokenBatch, cap: float | None, sampled_with: bool, tally: Tally) -> None:
    """Note the difference of log-probabilities computed here to those noted at sampling time.

    Args:
        logprobs_BA: as the trainer computes them now.
        batch: with the sampler's, and with a cap the trainer's own before the first update.
        cap: `importance_cap`.
        sampled_with: the weights are those it was sampled with; later ones differ for another reason than the sampler.
        tally: where the numbers go.
    """
    old_BA = batch.old_logprobs_BA
    columns = {"logprob_gap": (logprobs_BA - old_BA).abs(), "update_kl": losses.kl_k3(old_BA, logprobs_BA)}
    own_BA = logprobs_BA if cap is None else batch.own_logprobs_BA
    if cap is not None or sampled_with:
        columns |= {"sampler_gap": (own_BA - old_BA).abs(), "sampler_kl": losses.kl_k3(old_BA, own_BA)}
        ratio_BA = (own_BA - old_BA).exp()
        tally.add_largest("sampler_ratio_max", ratio_BA[batch.tree.mask_BA].max())
        columns |= {} if cap is None else {"sampler_truncated": ratio_BA > cap}
    tally.add_per_token(columns, batch.weights_BA)
