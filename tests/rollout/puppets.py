"""Players and pools that do what a test wants, in this process."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.policy.chat import ChatFormat
from lit_agents.rollout.agents import Choice, Player, Situation
from lit_agents.types import StopReason, Task


class Stage(TextEnvironment):
    """The first word of an action says what happens."""

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        return [Task(spec, str(i), split) for i in range(count)]

    def reset(self, task: Task) -> Start:
        if task.id == "broken":
            raise OSError("no such house")
        self.score = 0.0
        return Start(f"task {task.id}", max_score=3.0)

    def step(self, action: str) -> Transition:
        if action.startswith("crash"):
            raise RuntimeError("the lamp is broken")
        self.score += 1.0 if action.startswith("gain") else 0.0
        ends = {"win": {"won": True}, "lose": {"lost": True}, "end": {}}
        ending = ends.get(action)
        flags: dict[str, Any] = {"terminated": ending is not None, "truncated": action == "cut", **(ending or {})}
        return Transition(f"saw {action}", self.score, valid=action != "mumble", signals={"echo": action}, **flags)

    def close(self) -> None:
        pass


class LocalPool(EnvPool):
    """Sessions in this process."""

    def __init__(self, environment: TextEnvironment) -> None:
        self.environment = environment
        self.sessions: dict[int, TextEnvironment] = {}
        self.played: list[dict[int, str]] = []
        self.hints_expected = False

    def expect_hints(self) -> None:
        self.hints_expected = True

    def reset(self, tasks: Mapping[int, Task]) -> dict[int, Start | Failure]:
        return {s: self._try(s, lambda world, t=task: world.reset(t)) for s, task in tasks.items()}

    def step(self, actions: Mapping[int, str]) -> dict[int, Transition | Failure]:
        self.played.append(dict(actions))
        return {s: self._try(s, lambda world, a=action: world.step(a)) for s, action in actions.items()}

    def ask_expert(self, sessions: Iterable[int]) -> dict[int, str | Failure | None]:
        return {s: self._try(s, lambda world: world.expert_action()) for s in sessions}

    def ask_admissible(self, sessions: Iterable[int]) -> dict[int, list[str] | Failure]:
        return {s: self._try(s, lambda world: world.admissible_actions()) for s in sessions}

    def _try(self, session: int, ask: Callable[[Any], Any]) -> Any:
        try:
            return ask(self.sessions.setdefault(session, copy.deepcopy(self.environment)))
        except Exception as error:
            return Failure(StopReason.ENVIRONMENT_CRASH, str(error))

    def close(self) -> None:
        pass


class Scripted(Player):
    """Says what its script has for an episode's key and turn; notes what it was shown.

    Args:
        script: from the key of the job to its actions; the last one is repeated. A ``Choice`` or a ``Failure`` is
            handed on as it is.
    """

    version = 7

    def __init__(
        self, chat: ChatFormat, script: Callable[[tuple[object, ...]], Sequence[str | Choice | Failure | None]]
    ) -> None:
        self._chat, self._script = chat, script
        self.seen: dict[tuple[object, ...], list[tuple[int, ...]]] = {}
        self.rounds: list[list[Situation]] = []
        self.finished: list[int] = []

    def choose(self, situations: Sequence[Situation], pool: EnvPool) -> dict[int, Choice | Failure | None]:
        self.rounds.append(list(situations))
        return {s.session: self._say(s) for s in situations}

    def finish(self, sessions: Iterable[int]) -> None:
        self.finished += sessions

    def _say(self, situation: Situation) -> Choice | Failure | None:
        *key, turn = situation.key
        self.seen.setdefault(tuple(key), []).append(situation.ids)
        assert isinstance(turn, int)
        actions = self._script(tuple(key))
        said = actions[min(turn, len(actions) - 1)]
        if not isinstance(said, str):
            return said
        ids = tuple(self._chat.action_ids(said))
        return Choice(said, ids, tuple(-0.01 * i for i in ids))


class Hesitant(Scripted):
    """Answers one question in each call, that of the highest session."""

    def __init__(
        self, chat: ChatFormat, script: Callable[[tuple[object, ...]], Sequence[str | Choice | Failure | None]]
    ) -> None:
        super().__init__(chat, script)
        self.asked: dict[int, Situation] = {}

    def choose(self, situations: Sequence[Situation], pool: EnvPool) -> dict[int, Choice | Failure | None]:
        self.rounds.append(list(situations))
        assert not self.asked.keys() & {s.session for s in situations}, "asked again before it has answered"
        self.asked |= {s.session: s for s in situations}
        last = max(self.asked)
        return {last: self._say(self.asked.pop(last))}
