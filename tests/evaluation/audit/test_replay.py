"""Real games, played again: the expert's stored episodes get the same answers, and a changed one does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lit_agents.environment.pool.pool import EnvPool
from lit_agents.environment.textworld.env import TextWorld
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.evaluation.audit.replay import replay, sampled
from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.policy.chat import ChatFormat
from lit_agents.rollout.agents import ExpertPlayer
from lit_agents.rollout.collector import Job
from lit_agents.rollout.runner import Stage
from lit_agents.rollout.schedule import Limits
from lit_agents.types import TurnRewards
from tests.tiny import tiny_tokenizer


def test_textworld_answers_as_it_did(tmp_path: Path):
    pytest.importorskip("textworld")
    world = TextWorld(str(tmp_path / "games"))
    chat = ChatFormat.from_tokenizer(tiny_tokenizer())
    stage = Stage(world, chat, Limits(turns=8, context=4096, concurrent=2))
    try:
        jobs = [Job(task, 0, (task.id,)) for task in world.tasks("w2-o3-q4", "train", 2)]
        played = stage.play(jobs, ExpertPlayer(chat), 64, lambda *_: None)
    finally:
        stage.close()
    assert all(episode.won for episode in played)
    stored = [StoredEpisode("sft", 1, e, TurnRewards.of({"r": [0.0] * len(e.turns)}), i) for i, e in enumerate(played)]

    def faults(episodes: list[StoredEpisode]) -> list[str]:
        findings = Findings()
        with EnvPool(world, 2) as pool:
            replay(episodes, pool, 2, chat, findings)
        assert findings.checked["episodes played again"] == len(episodes) and not findings.unchecked
        return findings.faults

    assert world.repeatable and faults(stored) == []
    assert sampled(stored, 1)[0] in stored
    first, second, *rest = played[0].turns
    other = replace(played[0], turns=(first, replace(second, observation=f"{second.observation} A cat."), *rest))
    (fault,) = faults([replace(stored[0], episode=other)])
    assert "turn 1: what came next from character" in fault and "A cat.'" in fault
