from lit_agents.environment.alfworld.env import AlfWorld as AlfWorld
