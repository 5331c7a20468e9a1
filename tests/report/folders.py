"""Run folders and studies with chosen results, as `lit_agents.fit` and `lit_agents.tune` leave them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lit_agents.evaluation.episode_store import StoredEpisode
from lit_agents.evaluation.result import Conditions, Result
from lit_agents.rollout.ledger import Ledger
from lit_agents.types import Episode, StopReason, Task, Turn, TurnRewards

Won = Mapping[str, bool | None]
"""By task; None where the environment broke it."""
CONFIG: dict[str, Any] = {
    "name": "toy",
    "seed_everything": 1,
    "start_from": None,
    "model": {"class_path": "lit_agents.algorithm.grpo.GRPO", "init_args": {"warmup": 2}},
    "data": {"tasks": "w", "environment": {"class_path": "e", "init_args": {"folder": "x"}}},
    "trainer": {"max_epochs": 3, "logger": False},
    "budget": None,
}


def episode(task: str, won: bool | None, observation: str = "a room") -> Episode:
    turn = Turn(observation, (1,), "look", (2,), (-0.5,), 0, {"valid": True} if won is not None else {})
    stop = StopReason.ENVIRONMENT_CRASH if won is None else StopReason.WON if won else StopReason.TURN_LIMIT
    return Episode(Task("w", task, "test"), 0, (turn,), stop, 1.0)


def conditions(place: str, seed: int, **changed: Any) -> Conditions:
    environment = {"class": "e", "task_files": f"files of {place}"}
    given = {"tasks": place, "split": "test", "turn_limit": 2, "context_limit": 9, "sampling": {}, "seed": seed}
    return Conditions(**{**given, "environment": environment, **changed})


def result(won: Won, place: str = "test", seed: int = 1, **changed: Any) -> Result:
    episodes = [episode(task, win) for task, win in won.items()]
    rewards = [TurnRewards.of({"outcome": [float(e.won)]}) for e in episodes if not e.stop.is_failure]
    return Result.of(episodes, rewards, conditions(place, seed, **changed))


def run(
    folder: Path,
    stages: Mapping[str, Won],
    seed: int = 1,
    elsewhere: Mapping[str, Mapping[str, Won]] | None = None,
    config: Mapping[str, Any] | None = None,
    seconds: float = 10.0,
    **changed: Any,
) -> Path:
    """A run folder; ``elsewhere`` by stage and place."""
    folder.mkdir(parents=True)
    away = {
        stage: {place: result(won, place, seed).as_json() for place, won in places.items()}
        for stage, places in (elsewhere or {}).items()
    }
    success = {stage: result(won, seed=seed, **changed).as_json() for stage, won in stages.items()}
    settings = {**CONFIG, "seed_everything": seed, **(config or {})}
    summary = {"seed": seed, "start_from": settings["start_from"], "success": success, "elsewhere": away}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    ledger = vars(Ledger(demonstrations=2, episodes=8, seconds={"sft": 1.0, "rl": seconds, "test/base": 3.0}))
    (folder / "ledger.json").write_text(json.dumps(ledger))
    rows = ["stage,iteration,rollout/n,rollout/success,validation/success", "sft,1,2,1.0,"]
    rows += [f"rl,{i},4,{0.25 * i},{0.25 * i if i == 2 else ''}" for i in (1, 2)]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    with (folder / "episodes.jsonl").open("w") as file:
        for stage, tasks in stages.items():
            for task, win in tasks.items():
                rewards = None if win is None else TurnRewards.of({"outcome": [float(win)]})
                text = "<script>document.title = 'taken over'</script> & a room"
                file.write(StoredEpisode(f"test/{stage}", 0, episode(task, win, text), rewards).row() + "\n")
    return folder


def study(folder: Path, trials: list[dict[str, Any]], **changed: Any) -> Path:
    """A study's folder around run folders that are in it."""
    rows = []
    for number, trial in enumerate(trials):
        row = {"number": number, "state": "COMPLETE", "error": None, "setting": {}, "runs": []}
        rows.append(row | trial | {"label": trial["label"]})
    content = {
        "name": "split",
        "objectives": ["test"],
        "searched": False,
        "paper": None,
        "open": 0,
        "order": [],
        "trials": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(content | changed))
    return folder


def at(folder: str, start: str | None = None) -> dict[str, str | None]:
    """How a trial notes a run; where it was is not where the study lies now."""
    return {"folder": f"/gone/runs/{folder}", "start": start and f"/gone/sft/{start}"}
