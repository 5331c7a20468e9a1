"""Worlds that break in three episodes of ten, in every way there is: the run goes on, and no number knows of them."""

from __future__ import annotations

import csv
import json
import os
import statistics
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from lit_agents.environment.textworld.env import TextWorld
from lit_agents.environment.toy import EchoWorld
from lit_agents.evaluation.episode_store import StoredEpisode, read_episodes
from lit_agents.fit import fit, main
from lit_agents.policy.chat import ChatFormat
from lit_agents.rollout import group_collector as iteration_module
from lit_agents.rollout.agents import ExpertPlayer
from lit_agents.rollout.collector import Job
from lit_agents.rollout.runner import Stage
from lit_agents.rollout.schedule import Limits
from lit_agents.run.audit import audit
from lit_agents.system.hashing import digest
from lit_agents.types import StopReason, Task
from tests.integration.flaky import KINDS, Unreliable
from tests.integration.test_interrupt import descendants
from tests.tiny import tiny_tokenizer

RETRIES = 1


def world(share: float, *, seen: str = "seen", retries: int = RETRIES) -> list[str]:
    name = "--data.environment"
    flags = ["tests.integration.flaky.Unreliable", f"{name}.init_args.world", "lit_agents.environment.toy.EchoWorld"]
    flags += [f"{name}.init_args.folder", seen, f"{name}.init_args.share", str(share)]
    limits = ["--data.limits.step_timeout", "0.6", "--data.limits.reset_timeout", "0.6"]
    plan = ["--data.train_tasks", "32", "--data.schedule.tasks", "8", "--data.schedule.group_size", "3"]
    plan += ["--data.schedule.retries", str(retries), "--data.limits.concurrent", "24"]
    return [name, *flags, *limits, *plan]


@pytest.fixture
def broken(toy: str) -> Path:
    """A finished run in an unreliable world."""
    return fit(["--config", toy, *world(0.3), "--run", "broken"]).folder.path


def rollouts(run: Path) -> list[StoredEpisode]:
    return [s for s in read_episodes(run / "episodes.jsonl") if s.phase == "rl"]


def test_the_run_goes_on_and_no_number_knows_of_what_failed(broken: Path):
    found = rollouts(broken)
    failed, sound = ([s for s in found if s.episode.stop.is_failure is is_failure] for is_failure in (True, False))
    by_type = Counter(s.episode.stop for s in failed)
    # every kind of fault came: a hang and a slow start are both time-outs
    assert set(by_type) == {
        StopReason.ENVIRONMENT_CRASH, StopReason.ENVIRONMENT_TIMEOUT, StopReason.ENVIRONMENT_DIED,
        StopReason.ENVIRONMENT_GARBAGE,
    }  # fmt: skip
    asked = {s.episode.error.partition("answer to ")[2][:4] for s in failed if "no answer" in s.episode.error}
    assert len(KINDS) == 5 and asked == {"rese", "step"}
    assert len(failed) > 0.15 * len(found)

    with (broken / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "rl"]
    for row in rows:
        here = [s for s in found if s.iteration == int(row["iteration"])]
        counts = Counter(s.episode.stop for s in here)
        played = [s.episode for s in here if not s.episode.stop.is_failure]
        assert float(row["rollout/n"]) == len(played)
        assert float(row["rollout/success"]) == pytest.approx(sum(e.won for e in played) / len(played))
        assert float(row["rollout/turns"]) == pytest.approx(sum(len(e.turns) for e in played) / len(played))
        for stop in by_type:
            assert float(row[f"rollout/failure/{stop.value}"]) == counts[stop]
        attempts = Counter((s.episode.task.id, s.episode.member) for s in here)
        assert max(attempts.values()) <= 1 + RETRIES
        again = [key for key, n in attempts.items() if n > 1]
        assert {(s.episode.task.id, s.episode.member) for s in here if s.episode.stop.is_failure} >= set(again)
    ledger = json.loads((broken / "ledger.json").read_text())
    assert ledger["episodes"] == len(sound) and ledger["failed_episodes"] == len(failed)
    assert audit(broken).findings.faults == []  # nor was any of them trained on


def test_advantages_are_those_of_the_survivors_among_themselves(toy: str):
    """Computed again from the stored episodes, one group after the other. Nothing is tried again, so that groups shrink."""
    spy = "{trainer: {callbacks: [{class_path: tests.integration.spies.AdvantageSpy, init_args: {path: spy.jsonl}}]}}"
    Path("spy.yaml").write_text(spy)
    broken = fit(["--config", toy, "--config", "spy.yaml", *world(0.3, retries=0)]).folder.path
    expected: dict[tuple[int, str], list[float]] = defaultdict(list)
    dropped: Counter[int] = Counter()
    groups: dict[tuple[int, str], list[StoredEpisode]] = defaultdict(list)
    for stored in rollouts(broken):
        if not stored.episode.stop.is_failure:
            groups[stored.iteration, stored.episode.task.id].append(stored)
    sizes = Counter(map(len, groups.values()))
    assert sizes[2] and sizes[3]
    for (number, _), members in groups.items():
        if len(members) < 2:
            dropped[number] += 1
            continue
        returns = [s.rewards.total for s in members if s.rewards is not None]
        mean, deviation = statistics.fmean(returns), statistics.stdev(returns)
        for stored, value in zip(members, returns, strict=True):
            if deviation > 0 and value != mean:  # who is worth what his group is on average has no advantage: left out
                conversation = digest(stored.episode.token_ids)
                expected[number, conversation].append((value - mean) / (deviation + 1e-6))
    trained: dict[tuple[int, str], list[float]] = defaultdict(list)
    for line in Path("spy.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert max(row["advantages"]) - min(row["advantages"]) < 1e-6  # the same on all tokens of all turns
        trained[row["iteration"], row["conversation"]].append(row["advantages"][0])
    assert trained.keys() == expected.keys() and len(expected) > 10
    for key, values in expected.items():
        assert sorted(trained[key]) == pytest.approx(sorted(values), abs=1e-5)
    with (broken / "metrics.csv").open(newline="") as file:
        rows = {int(r["iteration"]): r for r in csv.DictReader(file) if r["stage"] == "rl"}
    lost = {n: 8 - sum(number == n for number, _ in groups) for n in rows}  # groups of which nobody survived
    assert {n: float(r["rollout/groups_dropped"]) for n, r in rows.items()} == {n: dropped[n] + lost[n] for n in rows}
    assert sum(dropped.values()) > 0


def test_who_survives_says_what_he_would_have_said_in_a_sound_world(toy: str, broken: Path):
    whole = fit(["--config", toy, *world(0.0), "--run", "whole"]).folder.path
    first = {(s.episode.task.id, s.episode.member): s for s in rollouts(whole) if s.iteration == 1}
    here = [s for s in rollouts(broken) if s.iteration == 1]
    failed = {(s.episode.task.id, s.episode.member) for s in here if s.episode.stop.is_failure}
    untouched = [s for s in here if (key := (s.episode.task.id, s.episode.member)) not in failed and key in first]
    assert len(untouched) > 8 and failed
    for mine, theirs in ((s.episode, first[s.episode.task.id, s.episode.member].episode) for s in untouched):
        assert [t.action_ids for t in mine.turns] == [t.action_ids for t in theirs.turns] and mine.stop is theirs.stop
        for turn, other in zip(mine.turns, theirs.turns, strict=True):
            # computed beside other episodes, so rounded otherwise
            assert turn.action_logprobs == pytest.approx(other.action_logprobs, abs=1e-5)


def test_a_run_in_which_most_episodes_fail_stops_and_says_why(toy: str, capfd):
    assert main(["--config", toy, *world(0.95)]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "error: data.environment: " in error and " episodes failed ({" in error
    assert "environment_timeout" in error and "raise data.schedule.max_failures" in error


def test_the_breaker_counts_all_ranks_and_so_stops_them_together(monkeypatch):
    from tests.rollout.test_group_collector import Theatre, broken, by_member, recruiter

    other: list[Any] = [(4, 0, 0, [("environment_died", "elsewhere")] * 100)]
    monkeypatch.setattr(iteration_module, "from_all_ranks", lambda mine: [*mine, *other])
    with pytest.raises(Exception, match=r"100 of 112 episodes failed \(\{'environment_died': 100\}\).*elsewhere"):
        recruiter(Theatre(by_member)).recruit(0, 0)
    other[0] = (0, 4, 12, [])  # no group survived there
    with pytest.raises(Exception, match="4 groups were dropped"):
        recruiter(Theatre(by_member)).recruit(0, 0)
    other[0] = (4, 0, 12, [])
    assert recruiter(Theatre(by_member)).recruit(0, 0).groups
    assert broken


def stage(share: float, folder: Path, **limits: Any) -> tuple[Stage, ExpertPlayer, ChatFormat]:
    chat = ChatFormat.from_tokenizer(tiny_tokenizer())
    unreliable = Unreliable(EchoWorld(), str(folder), share)
    return Stage(unreliable, chat, Limits(**({"turns": 3, "context": 200} | limits))), ExpertPlayer(chat), chat


def jobs(count: int, split: str = "train") -> list[Job]:
    return [Job(task, 0, (task.id,)) for task in EchoWorld().tasks("r3-w4", split, count)]


class OneHangs(EchoWorld):
    """The episode of one task hangs in its second step."""

    def reset(self, task: Task) -> Any:
        self.hangs, self.steps = task.id.endswith("4"), 0
        return super().reset(task)

    def step(self, action: str) -> Any:
        self.steps += 1
        if self.hangs and self.steps == 2:
            time.sleep(60)
        return super().step(action)


def test_one_straggler_holds_the_others_no_longer_than_its_time_out():
    chat = ChatFormat.from_tokenizer(tiny_tokenizer())
    plays = Stage(OneHangs(), chat, Limits(turns=3, context=200, concurrent=8, step_timeout=1.0))
    try:
        seconds = []
        for count in (3, 8):  # of the first three none hangs
            begun = time.monotonic()
            ended = plays.play(jobs(count), ExpertPlayer(chat), 20, lambda *_: None)
            seconds.append(time.monotonic() - begun)
            assert Counter(e.stop for e in ended)[StopReason.WON] == count - (count == 8)
        assert ended[3].stop is StopReason.ENVIRONMENT_TIMEOUT
        assert 1.0 <= seconds[1] < seconds[0] + 1.0 + 1.0  # one second for a machine that is busy
    finally:
        plays.close()


def memory(pid: int) -> float:
    """Resident megabytes that a process does not share."""
    fields = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1024


def handles_besides_sessions(plays: Stage) -> int:
    """Open files of this process without the one connection to each session, of which there are more or fewer."""
    return len(os.listdir("/proc/self/fd")) - len(plays._pool._sessions)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")
def test_nothing_is_left_behind_by_500_episodes(tmp_path: Path):
    plays, player, _ = stage(0.3, tmp_path / "seen", concurrent=10, step_timeout=0.3, reset_timeout=0.3)
    before = descendants(os.getpid())
    try:
        ended = plays.play(jobs(60), player, 20, lambda *_: None)  # everything that is loaded once is loaded now
        handles, megabytes = handles_besides_sessions(plays), memory(os.getpid())
        (helper,) = (pid for pid in descendants(os.getpid()) - before if parent(pid) == os.getpid())
        inside = memory(helper)
        ended += plays.play(jobs(500), player, 20, lambda *_: None)
        assert handles_besides_sessions(plays) == handles
        assert memory(os.getpid()) - megabytes < 8 and memory(helper) - inside < 4
        assert len(descendants(os.getpid()) - before) <= 11  # a helper and ten sessions
        assert len(os.listdir(f"/proc/{helper}/fd")) < 12
    finally:
        plays.close()
    counts = Counter(e.stop for e in ended)
    assert counts[StopReason.WON] == sum(counts.values()) - sum(n for s, n in counts.items() if s.is_failure) > 300
    assert sum(n for s, n in counts.items() if s.is_failure) > 100
    assert descendants(os.getpid()) - before == set()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")
def test_nothing_is_left_behind_by_500_episodes_of_real_games(tmp_path: Path):
    pytest.importorskip("textworld")
    games = TextWorld(str(tmp_path / "games"))
    tasks = games.tasks("w2-o3-q4", "train", 10)
    chat = ChatFormat.from_tokenizer(tiny_tokenizer())
    unreliable = Unreliable(games, str(tmp_path / "seen"))
    limits = Limits(turns=8, context=4000, concurrent=10, step_timeout=1.0, reset_timeout=1.0)
    plays, player, before = Stage(unreliable, chat, limits), ExpertPlayer(chat), descendants(os.getpid())

    def play(count: int) -> Counter[StopReason]:
        wanted = [Job(tasks[i % 10], i // 10, (i,)) for i in range(count)]
        return Counter(e.stop for e in plays.play(wanted, player, 100, lambda *_: None))  # a letter is a token

    try:
        play(60)
        handles, megabytes = handles_besides_sessions(plays), memory(os.getpid())
        counts = play(500)
        assert handles_besides_sessions(plays) == handles
        assert memory(os.getpid()) - megabytes < 8
        sessions = descendants(os.getpid()) - before
        assert len(sessions) <= 11 and max(map(memory, sessions)) < 200
    finally:
        plays.close()
    assert counts[StopReason.WON] > 300 and sum(n for s, n in counts.items() if s.is_failure) > 100
    assert descendants(os.getpid()) - before == set()
