"""The pool: what is broken is told by its kind, what works goes on, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lit_agents.environment.base import Start, Transition
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.environment.pool.worker import Helper
from lit_agents.errors import BadInput
from lit_agents.types import StopReason
from tests.environment.fake_worlds import TASK, Puppet, Unimportable


def alive(pid: int) -> bool:
    """A process nobody has waited for yet counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def until(condition: Callable[[], bool], seconds: float = 8.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def reset(pool: EnvPool, *numbers: int) -> list[int]:
    """Begin an episode in each; their process numbers."""
    starts = pool.reset(dict.fromkeys(numbers, TASK))
    assert all(isinstance(start, Start) for start in starts.values()), starts
    return [int(start.observation) for start in starts.values() if isinstance(start, Start)]


@pytest.fixture
def pool() -> Iterator[EnvPool]:
    with EnvPool(Puppet(), 20, step_timeout=5.0) as pool:
        yield pool


@pytest.mark.parametrize(
    ("action", "stop", "error"),
    [
        ("raise", StopReason.ENVIRONMENT_CRASH, "the lamp is broken"),
        ("leave", StopReason.ENVIRONMENT_CRASH, "SystemExit"),
        ("exit 3", StopReason.ENVIRONMENT_DIED, "exit code 3"),
        ("fault", StopReason.ENVIRONMENT_DIED, "killed by signal 11"),
        ("garbage none", StopReason.ENVIRONMENT_GARBAGE, "NoneType, not a Transition"),
        ("garbage bytes", StopReason.ENVIRONMENT_GARBAGE, "bytes, not str"),
        ("garbage nan", StopReason.ENVIRONMENT_GARBAGE, "not a finite number"),
        ("garbage text", StopReason.ENVIRONMENT_GARBAGE, "not a finite number"),
        ("garbage early", StopReason.ENVIRONMENT_GARBAGE, "won but not terminated"),
        ("garbage both", StopReason.ENVIRONMENT_GARBAGE, "both won and lost"),
        ("garbage taken", StopReason.ENVIRONMENT_GARBAGE, "'gain' is taken"),
        ("garbage lambda", StopReason.ENVIRONMENT_GARBAGE, "the signal 'f'"),
        ("garbage surrogate", StopReason.ENVIRONMENT_GARBAGE, "lone surrogate"),
    ],
)
def test_a_broken_world_is_a_failure_of_its_kind_and_the_others_go_on(
    pool: EnvPool, action: str, stop: StopReason, error: str
) -> None:
    before = reset(pool, 0, 1, 2)
    answers = pool.step({2: "look", 1: action, 0: "look"})
    assert list(answers) == [2, 1, 0]
    failure = answers[1]
    assert isinstance(failure, Failure) and failure.stop is stop and error in failure.error
    assert isinstance(answers[0], Transition) and isinstance(answers[2], Transition)
    with pytest.raises(RuntimeError, match="session 1 has no episode under way"):
        pool.step({1: "look"})
    after = reset(pool, 0, 1, 2)
    assert after[0] == before[0] and after[2] == before[2] and after[1] != before[1]
    assert until(lambda: not alive(before[1]))


def test_an_error_in_reset_is_a_crash(pool: EnvPool) -> None:
    answers = pool.reset({0: TASK, 1: replace(TASK, id="bad")})
    assert isinstance(answers[0], Start)
    assert isinstance(answers[1], Failure) and answers[1].stop is StopReason.ENVIRONMENT_CRASH
    assert "no such house" in answers[1].error


def test_a_slow_world_is_killed_at_the_time_out_and_does_not_delay_the_others() -> None:
    with EnvPool(Puppet(), 3, step_timeout=0.6) as pool:
        pids = reset(pool, 0, 1, 2)
        begin = time.monotonic()
        answers = pool.step({0: "hang", 1: "look", 2: "sleep 0.3"})
        assert 0.5 < time.monotonic() - begin < 2.0
        failure = answers[0]
        assert isinstance(failure, Failure) and failure.stop is StopReason.ENVIRONMENT_TIMEOUT
        assert isinstance(answers[1], Transition) and isinstance(answers[2], Transition)
        assert until(lambda: not alive(pids[0])) and alive(pids[1])
        assert reset(pool, 0) != pids[:1]


def test_worlds_move_at_the_same_time(pool: EnvPool) -> None:
    reset(pool, *range(16))
    begin = time.monotonic()
    answers = pool.step(dict.fromkeys(range(16), "sleep 0.2"))
    assert all(isinstance(answer, Transition) for answer in answers.values())
    assert time.monotonic() - begin < 1.6  # one after the other: 3.2


def test_messages_larger_than_any_buffer_pass(pool: EnvPool) -> None:
    reset(pool, 0, 1)
    answers = pool.step({0: "x" * 3_000_000, 1: "long 3000000"})
    assert isinstance(answers[0], Transition)
    assert isinstance(answers[1], Transition) and len(answers[1].observation) == 3_000_000


def test_a_world_that_does_not_read_is_given_up_too() -> None:
    with EnvPool(Puppet(), 2, step_timeout=0.5) as pool:
        (pid, _) = reset(pool, 0, 1)
        os.kill(pid, signal.SIGSTOP)
        answers = pool.step({0: "x" * 3_000_000, 1: "look"})
        failure = answers[0]
        assert isinstance(failure, Failure) and failure.stop is StopReason.ENVIRONMENT_TIMEOUT
        assert isinstance(answers[1], Transition) and not alive(pid)


def test_a_finished_episode_is_not_stepped(pool: EnvPool) -> None:
    reset(pool, 0)
    assert pool.ask_expert([0]) == {0: "win"}
    assert pool.ask_admissible([0]) == {0: []}
    assert pool.step({0: "win"})[0] == Transition("won", 1.0, terminated=True, won=True)
    for ask in (lambda: pool.step({0: "look"}), lambda: pool.ask_expert([0]), lambda: pool.ask_admissible([0])):
        with pytest.raises(RuntimeError, match="reset it first"):
            ask()
    reset(pool, 0)


def test_a_session_is_recycled() -> None:
    with EnvPool(Puppet(), 1, recycle_after=2) as pool:
        pids = [reset(pool, 0)[0] for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell what a process holds")
def test_a_session_that_has_grown_is_recycled_before_its_next_episode() -> None:
    with EnvPool(Puppet(), 2, recycle_bytes=250_000_000) as pool:
        before = reset(pool, 0, 1)
        assert reset(pool, 0, 1) == before
        pool.step({0: "grow 300"})
        assert pool.step({0: "look"})[0].observation == str(before[0])  # not in the middle of an episode
        after = reset(pool, 0, 1)
    assert after[0] != before[0] and after[1] == before[1]


def test_what_a_world_prints_is_not_in_the_callers_output(pool: EnvPool, capfd: pytest.CaptureFixture[str]) -> None:
    reset(pool, 0)
    pool.step({0: "print lantern"})
    assert capfd.readouterr().out == ""


def test_an_environment_that_cannot_travel_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot be pickled"):
        EnvPool(Puppet(forbidden=lambda: 0), 1).reset({0: TASK})  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"libhouse\.so is missing"):
        EnvPool(Unimportable(), 1).reset({0: TASK})
    with pytest.raises(BadInput, match="size: it is 0"):
        EnvPool(Puppet(), 0)


def test_a_class_of_the_main_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    script_class = type("ScriptWorld", (Puppet,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "ScriptWorld", script_class, raising=False)
    with pytest.raises(BadInput, match="must be importable by its full path in a fresh interpreter"):
        EnvPool(script_class(), 1).reset({0: TASK})


def test_nothing_is_left_after_an_exception() -> None:
    pids: list[int] = []
    with pytest.raises(ZeroDivisionError), EnvPool(Puppet(), 4) as pool:
        pids += reset(pool, 0, 1, 2, 3)
        raise ZeroDivisionError
    assert len(set(pids)) == 4 and not any(map(alive, pids))


def test_what_a_killed_world_started_goes_with_it(pool: EnvPool) -> None:
    reset(pool, 0)
    spawned = pool.step({0: "spawn"})[0]
    assert isinstance(spawned, Transition) and alive(int(spawned.observation))
    pool.step({0: "raise"})
    assert until(lambda: not alive(int(spawned.observation)))


def test_after_an_interrupted_call_no_late_answer_is_taken_for_another(pool: EnvPool) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    reset(pool, 0, 1)
    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            pool.step({0: "sleep 1", 1: "look"})
    finally:
        signal.signal(signal.SIGALRM, previous)
    (pid,) = reset(pool, 0)
    assert pool.step({0: "look"})[0] == Transition(str(pid), 0.0)


@pytest.mark.parametrize("begun", [(0, 1), (1,)])
def test_after_an_interrupt_while_the_helper_answers_each_session_is_known_by_its_own_process(
    pool: EnvPool, monkeypatch: pytest.MonkeyPatch, begun: tuple[int, ...]
) -> None:
    def interrupted(_: Helper) -> int:
        raise KeyboardInterrupt

    reset(pool, *begun)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Helper, "_reply", interrupted)
        if len(begun) == 1:
            reset(pool, 0)  # it is begun, and nobody reads its number
        else:
            pool.step({0: "raise"})
    pids = reset(pool, 0, 1, 2)
    assert [pool._sessions[number].pid for number in range(3)] == pids and all(map(alive, pids))


def test_a_fork_of_the_caller_neither_ends_the_sessions_nor_keeps_them() -> None:
    pool = EnvPool(Puppet(), 2)
    pids = reset(pool, 0, 1)
    fork = os.fork()
    if fork == 0:
        pool.close()
        time.sleep(60)
        os._exit(0)
    try:
        assert not until(lambda: not all(map(alive, pids)), seconds=0.3)
        begin = time.monotonic()
        pool.close()
        assert time.monotonic() - begin < 2.0 and not any(map(alive, pids))
    finally:
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)


def test_the_pool_survives_its_helper(pool: EnvPool) -> None:
    pids = reset(pool, 0, 1)
    os.kill(parent(pids[0]), signal.SIGKILL)
    assert until(lambda: not any(map(alive, pids)))
    failure = pool.step({0: "look"})[0]
    assert isinstance(failure, Failure) and failure.stop is StopReason.ENVIRONMENT_DIED
    reset(pool, 0)


def test_hints_are_prepared_once_for_all_sessions_and_only_if_expected(pool: EnvPool) -> None:
    before = reset(pool, 0)
    assert pool.step({0: "hints"})[0] == Transition("not prepared", 0.0)
    pool.expect_hints()
    assert not any(map(alive, before))
    pids = reset(pool, 0, 1)
    prepared = Transition(f"prepared in {parent(pids[0])}", 0.0)
    assert pool.step({0: "hints", 1: "hints"}) == {0: prepared, 1: prepared}
    pool.expect_hints()
    assert reset(pool, 0, 1) == pids
    os.kill(parent(pids[0]), signal.SIGKILL)
    assert until(lambda: not any(map(alive, pids)))
    pool.step({0: "look", 1: "look"})
    (pid,) = reset(pool, 0)
    assert pool.step({0: "hints"})[0] == Transition(f"prepared in {parent(pid)}", 0.0)


SCRIPT = """
from lit_agents.environment.pool.pool import EnvPool
from tests.environment.fake_worlds import TASK, Puppet
with EnvPool(Puppet(), 4, step_timeout=600) as pool:
    starts = pool.reset(dict.fromkeys(range(4), TASK))
    spawned = pool.step({3: "spawn"})[3].observation
    print(*(start.observation for start in starts.values()), flush=True)
    pool.step({0: "hang", 1: "sleep 600", 2: "look"})
"""


@pytest.mark.parametrize(
    ("sign", "to_group"), [(signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGINT, True)]
)
def test_nothing_is_left_when_the_caller_is_ended(sign: signal.Signals, to_group: bool) -> None:
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as caller:
        assert caller.stdout is not None
        pids = [int(pid) for pid in caller.stdout.readline().split()]
        assert len(pids) == 4 and all(map(alive, pids))
        time.sleep(0.2)  # into the call
        (os.killpg if to_group else os.kill)(caller.pid, sign)
        caller.wait(timeout=20)
    assert until(lambda: not any(map(alive, pids)))
