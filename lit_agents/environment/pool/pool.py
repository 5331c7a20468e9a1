"""Many episodes at once, each in a process of its own, so that a broken world ends its own episode and nothing else."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.environment.pool.session import Session
from lit_agents.environment.pool.worker import Helper
from lit_agents.errors import BadInput
from lit_agents.types import StopReason, Task

Requests = Mapping[int, tuple[str, tuple[object, ...]]]
"""By session: the name of the environment's method, and its arguments."""
TROUBLES = {"crash": StopReason.ENVIRONMENT_CRASH, "garbage": StopReason.ENVIRONMENT_GARBAGE}
CLOSING_GRACE = 2.0  # seconds a recycled session has to close its environment
DYING_GRACE = 0.2  # seconds for a session that hung up to be gone, so that its own exit status is read


@dataclass(frozen=True)
class Failure:
    """The world's fault: the episode cannot go on, and counts for nothing."""

    stop: StopReason
    error: str


class EnvPool:
    """A context manager of up to ``size`` sessions, numbered by the caller from 0; processes start when first needed.

    Every call takes many sessions, lets them work at the same time and returns when all answered or were given up, with
    a `Failure` in the place of each answer that did not come. A failed session is started afresh by its next reset.
    Not for several threads at once.

    Args:
        environment: a picklable environment whose class other processes can import.
        size: how many sessions there may be.
        step_timeout: seconds until a session that has not answered is killed.
        reset_timeout: the same, for a reset.
        recycle_after: number of resets after which a session gets a new process, for worlds that leak.
        recycle_bytes: the same, once its process holds as much memory (as the system tells, on Linux).
    """

    def __init__(
        self,
        environment: TextEnvironment,
        size: int,
        *,
        step_timeout: float = 30.0,
        reset_timeout: float = 60.0,
        recycle_after: int = 200,
        recycle_bytes: int = 1 << 30,
    ) -> None:
        for name, value in (("size", size), ("recycle_after", recycle_after), ("recycle_bytes", recycle_bytes)):
            if value < 1:
                raise BadInput(name, f"it is {value}.", "Give at least 1.")
        self._environment, self._size = environment, size
        self._recycle_after, self._recycle_bytes = recycle_after, recycle_bytes
        self._step_timeout, self._reset_timeout = step_timeout, reset_timeout
        self._helper: Helper | None = None
        self._hints = False
        self._sessions: dict[int, Session] = {}
        self._owner = os.getpid()

    def __enter__(self) -> EnvPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self, tasks: Mapping[int, Task]) -> dict[int, Start | Failure]:
        """Begin an episode in each of the sessions named.

        Raises:
            BadInput: the environment cannot be sent to another process.
        """
        failures: dict[int, Start | Failure] = {}
        for number in tasks:
            if not 0 <= number < self._size:
                raise ValueError(f"there is no session {number} in a pool of {self._size}")
            try:
                self._prepare(number)
            except OSError as error:
                failures[number] = Failure(StopReason.ENVIRONMENT_DIED, f"no process to play in: {error}")
        requests = {number: ("reset", (task,)) for number, task in tasks.items() if number not in failures}
        answers = cast("dict[int, Start | Failure]", self._ask(requests, self._reset_timeout))
        for number, answer in answers.items():
            if isinstance(answer, Start):
                self._sessions[number].playing = True
        return failures | answers

    def first_observations(self, tasks: Sequence[Task]) -> list[str | None]:
        """Begin an episode of each task, as many at once as there are sessions; None where that fails."""
        found: list[str | None] = []
        for first in range(0, len(tasks), self._size):
            some = dict(enumerate(tasks[first : first + self._size]))
            answers = self.reset(some)  # the failures first
            starts = [answers[number] for number in some]
            found += [start.observation if isinstance(start, Start) else None for start in starts]
        return found

    def step(self, actions: Mapping[int, str]) -> dict[int, Transition | Failure]:
        """Play one action in each of the sessions named; an episode that is over must be reset first."""
        self._must_be_playing(actions)
        requests = {number: ("step", (action,)) for number, action in actions.items()}
        answers = cast("dict[int, Transition | Failure]", self._ask(requests, self._step_timeout))
        for number, answer in answers.items():
            if isinstance(answer, Transition):
                self._sessions[number].playing = not (answer.terminated or answer.truncated)
        return answers

    def ask_expert(self, sessions: Iterable[int]) -> dict[int, str | Failure | None]:
        """The best next action in each of the sessions named, None where there is no expert."""
        requests: Requests = dict.fromkeys(sessions, ("expert_action", ()))
        self._must_be_playing(requests)
        return cast("dict[int, str | Failure | None]", self._ask(requests, self._step_timeout))

    def ask_admissible(self, sessions: Iterable[int]) -> dict[int, list[str] | Failure]:
        """The actions possible now in each of the sessions named; see `expect_hints`."""
        requests: Requests = dict.fromkeys(sessions, ("admissible_actions", ()))
        self._must_be_playing(requests)
        return cast("dict[int, list[str] | Failure]", self._ask(requests, self._step_timeout))

    def expect_hints(self) -> None:
        """Before episodes in which many sessions are asked for the expert's or the possible actions.

        It ends every process there is: the new ones share what `TextEnvironment.prepare_hints` imports, which would take
        each of them its own time and memory, and which most runs do not need at all.
        """
        if not self._hints:
            self.close()
            self._hints = True

    def close(self) -> None:
        """End every process; the pool may be used again afterwards."""
        if os.getpid() != self._owner:  # a forked copy of the pool has no business with them
            return
        for session in self._sessions.values():
            session.hang_up()
        self._sessions.clear()
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.close()

    def _must_be_playing(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            session = self._sessions.get(number)
            if session is None or not session.playing:
                raise RuntimeError(f"session {number} has no episode under way: reset it first")

    def _prepare(self, number: int) -> None:
        """Have a session to reset: the one there is, unless it is worn out or the helper died with it."""
        session = self._sessions.get(number)
        if session is not None:
            session.playing = False
            if session.resets >= self._recycle_after or session.resident() > self._recycle_bytes:
                self._drop(number, CLOSING_GRACE)
        if number not in self._sessions:
            with self._undisturbed():
                self._sessions[number] = self._fork()
        self._sessions[number].resets += 1

    def _fork(self) -> Session:
        fresh = self._helper is None
        self._helper = self._helper or Helper(self._environment, self._hints)
        try:
            pid, connection = self._helper.fork()
        except ConnectionError:
            if fresh:
                raise
            self._helper.close()  # it was killed; its sessions died with it, and are found dead when they are asked
            self._helper = Helper(self._environment, self._hints)
            pid, connection = self._helper.fork()
        connection.setblocking(False)
        return Session(pid, connection)

    def _drop(self, number: int, grace: float) -> str:
        session = self._sessions.pop(number, None)
        if session is None:  # Ctrl-C came while it was being dropped
            return ""
        session.hang_up()
        with self._undisturbed():
            return self._helper.end(session.pid, grace) if self._helper is not None else ""

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """After Ctrl-C in here all is begun anew: an answer of the helper that nobody read would be taken for its next one."""
        try:
            yield
        except KeyboardInterrupt:
            self.close()
            raise

    def _ask(self, requests: Requests, timeout: float) -> dict[int, object]:
        """One question to each session, one answer or failure from each, in the order of the requests."""
        answers: dict[int, object] = {}
        deadline = time.monotonic() + timeout
        try:
            with selectors.DefaultSelector() as selector:
                for number, request in requests.items():
                    session = self._sessions[number]
                    session.ask(request)
                    self._guard(number, session, selectors.EVENT_WRITE, answers)
                    if number not in answers:
                        writing = selectors.EVENT_WRITE if session.outbox else 0
                        selector.register(session.connection, selectors.EVENT_READ | writing, number)
                self._collect(selector, answers, deadline)
        except BaseException:
            for number in requests.keys() - answers.keys():  # a late answer would be taken for the next one
                self._drop(number, 0.0)
            raise
        for number in requests.keys() - answers.keys():
            self._drop(number, 0.0)
            error = f"no answer to {requests[number][0]} in {timeout} s"
            answers[number] = Failure(StopReason.ENVIRONMENT_TIMEOUT, error)
        return {number: answers[number] for number in requests}

    def _collect(self, selector: selectors.BaseSelector, answers: dict[int, object], deadline: float) -> None:
        while selector.get_map():
            left = deadline - time.monotonic()
            for key, events in selector.select(max(left, 0.0)):
                session = self._sessions[key.data]
                self._guard(key.data, session, events, answers)
                if key.data in answers:
                    selector.unregister(key.fileobj)
                elif not session.outbox:
                    selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
            if left <= 0:
                return

    def _guard(self, number: int, session: Session, events: int, answers: dict[int, object]) -> None:
        """Send and receive what can be; settles the answer if it is complete or will never come."""
        try:
            if events & selectors.EVENT_WRITE:
                session.send()
            if not (events & selectors.EVENT_READ and session.receive()):
                return
            trouble, answer = session.answer()
        except OSError as error:
            answers[number] = Failure(StopReason.ENVIRONMENT_DIED, f"{error}: {self._drop(number, DYING_GRACE)}")
            return
        except Exception as error:
            trouble, answer = "garbage", f"an answer that cannot be read: {error}"
        if trouble:
            self._drop(number, 0.0)
            answer = Failure(TROUBLES[trouble], answer)
        answers[number] = answer
