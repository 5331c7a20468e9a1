"""The numbers of one iteration, added up over the parts of its optimizer steps."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lit_agents.algorithm import losses
from lit_agents.types import TokenBatch


class Tally:
    """Begun anew in every iteration."""

    def __init__(self) -> None:
        self._per_step: dict[str, float] = {}
        self._per_token: dict[str, tuple[float, float]] = {}
        self._largest: dict[str, float] = {}
        self.computed_tokens = 0
        """Tokens that went through the model."""

    def add(self, numbers: Mapping[str, Tensor]) -> None:
        """What a part adds to numbers of its optimizer step."""
        for name, number in numbers.items():
            self._per_step[name] = self._per_step.get(name, 0.0) + float(number.detach())

    def add_per_token(self, columns: Mapping[str, Tensor], weights_BA: Tensor) -> None:
        """(B, A) columns whose weighted mean is wanted."""
        for name, column_BA in columns.items():
            total, weight = self._per_token.get(name, (0.0, 0.0))
            more = float((weights_BA * column_BA.detach()).sum())
            self._per_token[name] = (total + more, weight + float(weights_BA.sum()))

    def add_largest(self, name: str, number: Tensor) -> None:
        """A number whose maximum is wanted."""
        self._largest[name] = max(self._largest.get(name, float("-inf")), float(number))

    @property
    def per_step(self) -> frozenset[str]:
        """Names of what is added up over the tokens of an optimizer step: nothing where no token has any signal."""
        return frozenset(self._per_step)

    def result(self, steps: int) -> dict[str, float]:
        """Means over optimizer steps, means over tokens and maxima; what was never added is not there."""
        means = {name: total / max(1, steps) for name, total in self._per_step.items()}
        per_token = {name: total / weight for name, (total, weight) in self._per_token.items()}
        return means | per_token | self._largest | {"computed_tokens": float(self.computed_tokens)}


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
