from lit_agents.environment.swe.env import SweGym as SweGym
