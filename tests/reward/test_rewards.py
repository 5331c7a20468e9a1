"""Rewards against numbers worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from lit_agents.errors import BadInput
from lit_agents.reward.base import Reward
from lit_agents.reward.dense import ScoreGain
from lit_agents.reward.mixture import Mixture, Weighted
from lit_agents.reward.outcome import Outcome
from lit_agents.reward.shaping import Format, InvalidCommand, TurnCost, UnfinishedAction
from lit_agents.types import StopReason, Task
from tests.reward.episodes import episode

NOT_WON = [stop for stop in StopReason if stop is not StopReason.WON and not stop.is_failure]
DENSITIES = [1, 3, 4, 7, 8, 10]  # increments of a win: sparse, balanced and dense tw-simple games


def test_outcome_is_on_the_last_turn_and_only_a_win_is_a_win():
    assert Outcome()(episode([0, 0, 1], StopReason.WON)).values == (0, 0, 1)
    assert Outcome()(episode([0, 1, 1], StopReason.LOST)).values == (0, 0, 0)
    assert Outcome(win=2, loss=-1)(episode([0, None], StopReason.UNFINISHED_ACTION)).values == (0, -1)
    assert Outcome()(episode([], StopReason.CONTEXT_LIMIT)).values == ()
    assert Outcome()(episode([1], StopReason.WON)).parts == {"outcome": (1,)}


def test_outcome_refuses_a_win_that_is_not_worth_more_than_a_loss():
    with pytest.raises(BadInput, match="win=0"):
        Outcome(win=0)


def test_score_gain_pays_each_increment_on_the_turn_that_earned_it():
    won = episode([0, 1, 1, 3, 4], StopReason.WON, max_score=4)
    assert ScoreGain()(won).values == (0, 0.25, 0, 0.5, 0.25)
    assert ScoreGain(normalise=False)(won).values == (0, 1, 0, 2, 1)


def test_a_lost_game_keeps_what_it_earned_and_stays_below_every_win():
    # eating the food in tw-simple: lost with 6 of 7
    rewards = ScoreGain()(episode([1, 2, 3, 4, 5, 6, 6], StopReason.LOST, max_score=7))
    assert rewards.total == pytest.approx(6 / 7)
    assert rewards.values[-1] == 0


def test_a_full_score_without_a_win_is_not_paid_in_full():
    assert ScoreGain()(episode([1, 2, 4], StopReason.TURN_LIMIT, max_score=4)).values == (0.25, 0.25, 0)
    assert ScoreGain()(episode([1], StopReason.LOST)).total == 0


def test_the_last_turn_of_a_win_gets_what_is_missing():
    assert ScoreGain()(episode([1, 1], StopReason.WON, max_score=4)).values == (0.25, 0.75)
    assert ScoreGain()(episode([0, 0], StopReason.WON)).values == (0, 1)


def test_an_action_that_was_not_played_gains_nothing():
    rewards = ScoreGain()(episode([1, 2, None], StopReason.UNFINISHED_ACTION, max_score=4))
    assert rewards.values == (0.25, 0.25, 0)
    assert ScoreGain()(episode([None], StopReason.UNFINISHED_ACTION, max_score=4)).values == (0,)


@pytest.mark.parametrize("density", DENSITIES)
def test_a_win_totals_exactly_one_and_every_scripted_failure_less_at_every_density(density):
    steps = [float(k) for k in range(1, density + 1)]
    assert ScoreGain()(episode(steps, StopReason.WON, max_score=density)).total == 1
    for stop in NOT_WON:
        for kept in range(density + 1):
            total = ScoreGain()(episode([*steps[:kept], None], stop, max_score=density)).total
            assert 0 <= total <= 1 - 1 / density + 1e-12


@given(
    scores=st.lists(st.integers(-3, 12), min_size=1, max_size=12),
    stop=st.sampled_from([StopReason.WON, *NOT_WON]),
    top=st.integers(1, 10),
)
def test_whatever_the_scores_a_win_totals_one_and_the_rest_is_in_between(scores, stop, top):
    total = ScoreGain()(episode(scores, stop, max_score=top)).total
    if stop is StopReason.WON:
        assert total == pytest.approx(1, abs=1e-12)
    else:
        assert -1e-12 <= total < 1 - 1e-9


def test_score_gain_refuses_tasks_without_an_intermediate_score():
    dense = Task("simple", "1", "train", rewards=7)
    ScoreGain().check([dense])
    with pytest.raises(BadInput, match=r"1 of 2 tasks have no intermediate score .first: w2-o3-q4 9"):
        ScoreGain().check([dense, Task("w2-o3-q4", "9", "train")])


def test_costs_are_on_the_turns_that_caused_them():
    played = episode([0, 0, 1], StopReason.WON, valid=[True, False, True])
    cut = episode([0, None], StopReason.UNFINISHED_ACTION, valid=[False, True])
    assert TurnCost(0.1)(cut).values == (-0.1, -0.1)
    assert InvalidCommand(0.2)(played).values == (0, -0.2, 0)
    assert InvalidCommand(0.2)(cut).values == (-0.2, 0)
    assert UnfinishedAction(0.3)(played).values == (0, 0, 0)
    assert UnfinishedAction(0.3)(cut).values == (0, -0.3)


def test_an_action_that_is_not_written_as_asked_costs_whatever_the_world_made_of_it():
    written = ["go east", "", "well\ngo east", "go <b>"]
    played = episode([0, 0, 0, 1], StopReason.WON)
    turns = tuple(replace(turn, action=text) for turn, text in zip(played.turns, written, strict=True))
    said = replace(played, turns=turns)
    assert Format(0.2)(said).values == (0, -0.2, -0.2, 0)
    assert Format(0.2, pattern="[a-z ]+")(said).values == (0, -0.2, -0.2, -0.2)
    with pytest.raises(BadInput, match="no regular expression"):
        Format(0.2, pattern="(")


@pytest.mark.parametrize("cost", [TurnCost, InvalidCommand, UnfinishedAction, Format])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_a_cost_below_zero_is_refused(cost, value):
    with pytest.raises(BadInput, match="cost="):
        cost(value)


def test_a_mixture_keeps_its_parts_and_sums_them_with_their_weights():
    mixture = Mixture([Weighted(Outcome(), 2.0), Weighted(TurnCost(0.1), 0.5, name="haste")])
    rewards = mixture(episode([0, 1], StopReason.WON))
    assert rewards.parts == {"Outcome": (0, 2), "haste": (-0.05, -0.05)}
    assert rewards.values == pytest.approx((-0.05, 1.95))
    nested = Mixture([Weighted(mixture, 1.0, name="both")])(episode([0, 1], StopReason.WON))
    assert set(nested.parts) == {"both/Outcome", "both/haste"}
    assert nested.values == rewards.values


def test_a_mixture_refuses_what_it_could_not_tell_apart_and_passes_checks_on():
    with pytest.raises(BadInput, match="called TurnCost"):
        Mixture([Weighted(TurnCost(0.1), 1), Weighted(TurnCost(0.2), 1)])
    with pytest.raises(BadInput, match="empty"):
        Mixture([])
    with pytest.raises(BadInput, match="no intermediate score"):
        Mixture([Weighted(ScoreGain(), 1)]).check([Task("f", "1", "train")])


def test_a_mixture_is_built_from_class_paths():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--reward", type=Reward)
    parts = [
        {"reward": {"class_path": "lit_agents.reward.outcome.Outcome", "init_args": {"win": 3}}, "weight": 2},
        {"reward": {"class_path": "lit_agents.reward.shaping.TurnCost", "init_args": {"cost": 1}}, "weight": 0.5},
    ]
    mixture = {"class_path": "lit_agents.reward.mixture.Mixture", "init_args": {"parts": parts}}
    reward = parser.instantiate_classes(parser.parse_object({"reward": mixture})).reward
    assert reward(episode([1], StopReason.WON)).parts == {"Outcome": (6,), "TurnCost": (-0.5,)}
