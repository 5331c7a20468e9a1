"""Metrics against numbers worked by hand."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import pytest
from torch import distributed, multiprocessing

from lit_agents.distributed import from_all_ranks
from lit_agents.evaluation.metrics import EpisodeMetrics
from lit_agents.evaluation.stats.intervals import wilson
from lit_agents.reward.outcome import Outcome
from lit_agents.rollout.ledger import Ledger
from lit_agents.run.callbacks.recorder import EpisodeRecorder
from lit_agents.types import Episode, StopReason
from tests.reward.episodes import episode

WON = episode([0, 1], StopReason.WON, valid=[False, True], labels={"tier": "easy"})
LOST = episode([0], StopReason.LOST, labels={"tier": "hard"})
CUT = episode([0, 0, None], StopReason.UNFINISHED_ACTION, labels={"tier": "easy"})
CUT = replace(CUT, turns=(*CUT.turns[:2], replace(CUT.turns[2], window_start=2)))
CRASHED = episode([0, 0, 0], StopReason.ENVIRONMENT_CRASH, labels={"tier": "easy"})

WON, LOST, CUT, CRASHED = (
    replace(e, task=replace(e.task, id=name)) for e, name in ((WON, "w"), (LOST, "l"), (CUT, "c"), (CRASHED, "x"))
)


def filled(*episodes: Episode) -> EpisodeMetrics:
    metrics = EpisodeMetrics()
    metrics.update(episodes, [Outcome()(e) for e in episodes if not e.stop.is_failure])
    return metrics


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(88, 100, 0.8019, 0.9300), (1, 10, 0.0179, 0.4042), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_gives_the_known_intervals(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(("successes", "n"), [(3, 7), (50, 100), (1, 2), (99, 100)])
def test_the_ends_of_wilson_are_where_the_score_test_just_rejects(successes, n):
    for end in wilson(successes, n, z=1.5):
        assert abs(successes / n - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.5)


def test_episodes_that_were_cheated_are_counted_where_they_are_looked_for():
    def submitted(cheated: bool) -> Episode:
        last = LOST.turns[-1]
        return replace(LOST, turns=(replace(last, signals={**last.signals, "cheated": cheated}),))

    assert filled(submitted(True), submitted(False), submitted(True), CUT).compute()["cheated"] == 2
    assert filled(submitted(False)).compute()["cheated"] == 0 and "cheated" not in filled(WON, LOST).compute()


def test_wilson_refuses_more_successes_than_trials():
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)


def test_every_number_is_as_worked_by_hand():
    numbers = filled(WON, LOST, CUT, CRASHED).compute()
    assert numbers["n"] == 3
    assert numbers["success"] == pytest.approx(1 / 3)
    assert (numbers["success_low"], numbers["success_high"]) == wilson(1, 3)
    assert numbers["return"] == pytest.approx(1 / 3)
    assert numbers["turns"] == 2  # (2 + 1 + 3) / 3
    assert numbers["invalid_rate"] == pytest.approx(1 / 5)  # five played actions, the first of WON invalid
    assert numbers["unfinished_rate"] == pytest.approx(1 / 6)
    assert numbers["action_tokens"] == 2
    assert numbers["slid"] == pytest.approx(1 / 3)
    assert numbers["failures"] == 1
    assert numbers["failure/environment_crash"] == 1
    assert numbers["failure/environment_died"] == 0
    assert numbers["stop/lost"] == pytest.approx(1 / 3)
    assert sum(v for k, v in numbers.items() if k.startswith("stop/")) == pytest.approx(1)
    assert (numbers["success/tier=easy"], numbers["n/tier=easy"]) == (0.5, 2)
    assert (numbers["success/tier=hard"], numbers["n/tier=hard"]) == (0, 1)
    assert (numbers["success_low/tier=easy"], numbers["success_high/tier=easy"]) == pytest.approx(wilson(1, 2))


def test_batches_add_up_and_reset_forgets():
    metrics = filled(WON, CRASHED)
    metrics.update([LOST, CUT], [Outcome()(LOST), Outcome()(CUT)])
    assert metrics.compute() == filled(WON, LOST, CUT, CRASHED).compute()
    metrics.reset()
    metrics.update([LOST], [Outcome()(LOST)])
    assert metrics.compute() == pytest.approx(filled(LOST).compute(), nan_ok=True)


def test_only_failures_give_counts_and_no_rates():
    numbers = filled(CRASHED, CRASHED).compute()
    assert (numbers["n"], numbers["failures"]) == (0, 2)
    assert math.isnan(numbers["success"])
    assert math.isnan(numbers["turns"])
    assert not [name for name in numbers if "=" in name]


def test_rewards_that_do_not_match_the_episodes_are_refused():
    with pytest.raises(ValueError, match="argument 2 is longer"):
        EpisodeMetrics().update([WON, CRASHED], [Outcome()(WON), Outcome()(WON)])


def _rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    ledger = Ledger()
    ledger.charge([WON, CRASHED] if rank == 0 else [LOST, CUT], demonstrated=False)
    total = ledger.total()
    ledger.go_on_from(total, first=rank == 0)  # as after a resume
    silent: dict[str, float] = {}  # no episode of this rank has any signal
    numbers = {"loss": 0.5, "entropy": 0.2} if rank == 0 else silent
    averaged = EpisodeRecorder._averaged(numbers, frozenset(numbers) - {"entropy"})
    found = from_all_ranks([WON, CRASHED] if rank == 0 else [LOST, CUT]), total, ledger.total(), averaged
    with open(f"{folder}/{rank}", "wb") as file:
        pickle.dump(found, file)
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_available(), reason="torch was built without distributed")
def test_two_ranks_have_the_episodes_of_both_and_one_ledger(tmp_path):
    multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        everyone, total, resumed, averaged = pickle.loads((tmp_path / str(rank)).read_bytes())
        assert everyone == [WON, CRASHED, LOST, CUT]
        assert (total["episodes"], total["failed_episodes"], total["turns"]) == (3, 1, 6)  # 2 + 1 + 3 turns
        assert resumed == total
        assert averaged == {
            "loss": 0.25,
            "entropy": 0.2,
        }  # a sum over tokens of both; a mean over those that were trained
