"""Results are taken over of the very weights they are of, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lit_agents.evaluation.parent_results import measured, results_of
from lit_agents.evaluation.result import Conditions, Result

MEANS = {"torch": "2", "dtype": "torch.bfloat16"}
RESULT = Result(
    0.5, 2, 0.1, 0.9, 3.0, 0, Conditions("t", "test", 2, 64, {"temperature": 1.0}, 1, {}), {}, {"a": (1, 2)}
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints" / "sft" / "last.ckpt"
    path.parent.mkdir(parents=True)
    summary = {
        "success": {"base": RESULT.as_json() | {"rate": 0.0}, "sft": RESULT.as_json()},
        "elsewhere": {"sft": {"longer": RESULT.as_json() | {"rate": 0.25}}},
        "measured": {"sft": measured(path, 24, MEANS)},
    }
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    return path


def test_they_are_those_of_the_checkpoints_stage_at_every_place(checkpoint: Path):
    found = results_of(checkpoint, 24, MEANS)
    assert found["test"] == RESULT and {place: result.rate for place, result in found.items()} == {
        "test": 0.5,
        "longer": 0.25,
    }
    assert found["test"].conditions.same_as(RESULT.conditions)


def test_there_are_none_of_other_weights_or_other_means(checkpoint: Path):
    assert not results_of(checkpoint, 25, MEANS)  # the stage went on since
    assert not results_of(checkpoint.with_name("best.ckpt"), 24, MEANS)
    assert not results_of(checkpoint.parents[1] / "rl" / "last.ckpt", 24, MEANS)
    assert not results_of(checkpoint, 24, {**MEANS, "torch": "3"})
    assert not results_of(checkpoint, 24, {**MEANS, "dtype": "torch.float32"})
    assert not results_of(Path("last.ckpt"), 24, MEANS)
    (checkpoint.parents[2] / "summary.json").write_text("{")
    assert not results_of(checkpoint, 24, MEANS)
