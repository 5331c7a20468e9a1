from __future__ import annotations

import pytest

from lit_agents.study.config_merge import Settings, disagreements, found, merged, placed
from lit_agents.system.nested import leaves


def test_what_is_above_wins_and_the_rest_stays():
    below = {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}
    assert merged(below, {"a": {"c": {"d": 3}}, "e": [9]}) == {"a": {"b": 1, "c": {"d": 3}}, "e": [9]}
    assert merged(below, {"a": None}) == {"a": None, "e": [1, 2]}
    assert below == {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}  # nothing was changed in place


def test_another_class_keeps_no_arguments_of_the_one_before():
    below = {"model": {"class_path": "GRPO", "init_args": {"divide_by_std": False, "clip": 0.2}}}
    other = {"model": {"class_path": "PPO", "init_args": {"lam": 0.9}}}
    assert merged(below, other) == other
    same = {"model": {"class_path": "GRPO", "init_args": {"clip": 0.3}}}
    assert merged(below, same)["model"]["init_args"] == {"divide_by_std": False, "clip": 0.3}
    assert merged(below, {"model": {"init_args": {"clip": 0.3}}})["model"]["class_path"] == "GRPO"


def test_a_flag_is_a_place():
    assert placed("a.b.c", 1) == {"a": {"b": {"c": 1}}}
    assert dict(leaves({"a": {"b": 1, "c": {}}, "d": None})) == {"a.b": 1, "a.c": {}, "d": None}
    assert found({"a": {"b": 1}}, "a.b") == 1
    for flag in ("a.x", "a.b.c"):
        with pytest.raises(KeyError):
            found({"a": {"b": 1}}, flag)


def test_every_disagreement_is_said():
    config = {"a": {"b": 1.0, "x": "default"}, "parts": [{"reward": {"class_path": "R", "init_args": {"n": True}}}]}
    assert disagreements({"a": {"b": 1}, "parts": [{"reward": {"class_path": "R"}}]}, config) == []
    wrong = {"a": {"b": 2, "y": 3}, "parts": [{"reward": {"class_path": "S"}}]}
    assert disagreements(wrong, config) == [
        "a.b is 1.0, not 2",
        "a.y is not there",
        f"parts is {config['parts']!r}, not {wrong['parts']!r}",
    ]
    assert disagreements({"flag": True}, {"flag": 1}) == ["flag is 1, not True"]
    assert disagreements({"flag": None}, {"flag": 0}) == ["flag is 0, not None"]


def test_settings_are_a_mapping():
    assert Settings.read({"a": 1}).content == {"a": 1}
    with pytest.raises(ValueError, match="nested"):
        Settings.read("conf.yaml")
