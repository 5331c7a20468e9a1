"""Are the stored rewards those that the configuration's reward gives the stored episodes?

It is the same reward class called again on what was stored, so it proves that rewards, signals and configuration belong
together, not that the class is right.
"""

from __future__ import annotations

from lit_agents.evaluation.audit.facts import Facts
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.reward.base import Reward

WHAT = "rewards computed again"


def check_rewards(stored: StoredEpisode, facts: Facts, reward: Reward, findings: Findings) -> None:
    """Compare values and named parts, bit for bit; and the gain of each turn with the scores before and after it."""
    if stored.episode.stop.is_failure:
        findings.expect(stored.rewards is None, WHAT, f"{facts.where}: a failure has rewards")
        return
    if stored.rewards is None:
        findings.expect(False, WHAT, f"{facts.where}: it has no rewards")
        return
    try:
        again = reward(stored.episode)
    except Exception as error:  # a user's reward may raise anything on signals that were changed
        findings.expect(False, WHAT, f"{facts.where}: the reward cannot be computed ({type(error).__name__}: {error})")
        return
    parts = {name: tuple(values) for name, values in again.parts.items()}
    noted = {name: tuple(values) for name, values in stored.rewards.parts.items()}
    for name in sorted(parts.keys() | noted.keys()):
        fault = f"{facts.where}: reward {name} is {noted.get(name)}, computed again {parts.get(name)}"
        findings.expect(parts.get(name) == noted.get(name), WHAT, fault)
    good = tuple(stored.rewards.values) == tuple(again.values)
    findings.expect(
        good, WHAT, f"{facts.where}: the rewards are {stored.rewards.values}, computed again {again.values}"
    )
    before = 0.0
    for k, turn in enumerate(stored.episode.turns):
        if "score" not in turn.signals:
            continue
        score, gain = float(turn.signals["score"]), turn.signals.get("gain")
        fault = f"{facts.where}, turn {k + 1}: the gain is {gain}, and the score rose from {before} to {score}"
        findings.expect(gain == score - before, "gains", fault)
        before = score
