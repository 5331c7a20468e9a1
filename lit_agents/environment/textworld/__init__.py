from lit_agents.environment.textworld.env import TextWorld as TextWorld
