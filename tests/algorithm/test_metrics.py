"""Numbers of an iteration, by hand."""

from __future__ import annotations

import pytest
import torch

from lit_agents.algorithm.metrics import Tally


def test_sums_are_per_step_means_are_per_token_and_maxima_are_of_everything():
    tally = Tally()
    for loss, gap, weights, ratio, tokens in (
        (0.5, [1.0, 9.0], [0.25, 0.0], 2.0, 7),
        (1.5, [3.0, 2.0], [0.5, 0.25], 5.0, 8),
        (1.0, [4.0, 0.0], [0.5, 0.5], 3.0, 9),
    ):
        tally.add({"loss": torch.tensor(loss)})
        tally.add_per_token({"gap": torch.tensor([gap])}, torch.tensor([weights]))
        tally.add_largest("ratio", torch.tensor(ratio))
        tally.computed_tokens += tokens
    # three parts of two steps: (0.5 + 1.5 + 1) / 2; (0.25 + 1.5 + 0.5 + 2) / (0.25 + 0.75 + 1)
    assert tally.result(2) == pytest.approx({"loss": 1.5, "gap": 4.25 / 2, "ratio": 5.0, "computed_tokens": 24.0})
    assert Tally().result(0) == {"computed_tokens": 0.0}
