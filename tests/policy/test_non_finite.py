"""Logits that are not finite are said as such, in sampling and in scoring."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.engine.base import Request
from lit_agents.policy.engine.hf import TransformersEngine
from lit_agents.policy.non_finite import NonFinite
from lit_agents.policy.sampling import Sampling
from lit_agents.rng import stream
from tests.policy.test_causal_lm import shared_beginnings
from tests.tiny import tiny_model_folder

WEIGHT = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("tiny"))


def broken(folder: Path, value: float, token_trees: bool = True) -> CausalLMPolicy:
    policy = CausalLMPolicy(str(folder), token_trees=token_trees)
    policy.load()
    policy.steps = 7
    with torch.no_grad():
        dict(policy.hf.named_parameters())[WEIGHT][0, 0] = value
    return policy


@pytest.mark.parametrize("token_trees", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sampling_from_logits_that_are_not_finite_names_step_weight_and_way_out(
    folder, value, temperature, token_trees
):
    policy = broken(folder, value, token_trees)
    engine = TransformersEngine()
    engine.attach(policy, 2, 64)
    asked = [Request(s, (5, 6, 7 + s), stream(s)) for s in range(2)]
    said = rf"after 7 optimizer steps: non-finite logits; the weight {WEIGHT} is itself not finite\. Lower the learning rate"
    with pytest.raises(NonFinite, match=said):
        engine.generate(asked, Sampling(temperature=temperature, max_tokens=4))


def test_scoring_logits_that_are_not_finite_names_the_largest_weight(folder):
    policy = broken(folder, 1.0)
    with torch.no_grad():
        dict(policy.hf.named_parameters())["model.norm.weight"].fill_(3e38)
    said = r"after 7 optimizer steps: non-finite logits; all weights are finite, the largest is 3e\+38 in model\.norm\.weight"
    with pytest.raises(NonFinite, match=said):
        policy.score(token_tree(shared_beginnings(2)), 1.0)
