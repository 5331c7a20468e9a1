"""An algorithm's credit held against its contract, on numbers that are made up, before anything is loaded."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_agents.algorithm.base import AgentModule
from lit_agents.algorithm.experience import Experience
from lit_agents.errors import BadInput


def check_credit(module: AgentModule) -> None:
    """Ask for the credit of two episodes of 3 and 2 action tokens; another shape would be spread over tokens in silence.

    Raises:
        BadInput: it does not return advantages and returns of one value for each token.
    """
    mask_BA = torch.tensor([[True, True, True], [True, True, False]])
    rewards_BA = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.5, 0.0]])
    nothing = torch.zeros(2, dtype=torch.long)
    found: object = module.credit(Experience(mask_BA, rewards_BA, torch.zeros(2, 3), torch.zeros(2), nothing))
    parts = found if isinstance(found, tuple) else (found,)
    shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in parts]
    if shapes != [(2, 3), (2, 3)]:
        said = " and ".join(map(str, shapes))
        reason = f"credit returns {said} for 2 episodes of at most 3 action tokens."
        way_out = "Return advantages and returns, both (B, A), as lit_agents.algorithm.rloo does."
        raise BadInput(f"model {type(module).__name__}", reason, way_out)
