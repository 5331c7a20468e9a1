"""lit_agents: multi-turn reinforcement learning of language-model agents in PyTorch Lightning."""

__version__ = "0.1.0"
