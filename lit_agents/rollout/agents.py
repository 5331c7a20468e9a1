"""Who chooses the actions: the policy, the environment's expert, or chance. To the collector they are all the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.policy.chat import ChatFormat
from lit_agents.policy.engine.base import Engine, Request
from lit_agents.policy.sampling import Sampling
from lit_agents.rng import stream
from lit_agents.system.hashing import digest
from lit_agents.types import Episode

NOBODY = "the environment has no expert, or lists no admissible action"


@dataclass(frozen=True)
class Situation:
    """An episode that waits for an action."""

    session: int
    """Its place in the pool and in the engine."""
    ids: tuple[int, ...]
    """What is in sight of the conversation so far."""
    key: tuple[object, ...]
    """What its random numbers belong to: seed, iteration, task, member, attempt and turn."""
    rewound: int | None = None
    """Turns were dropped out of sight: of what was in sight before, only so many first tokens still are."""


@dataclass(frozen=True)
class Choice:
    """An action."""

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    finished: bool = True
    prompt_digest: str = ""
    """Of the tokens it was sampled after; see `lit_agents.types.Turn`."""


class Player(ABC):
    """Chooses actions for many episodes at once."""

    version: int = -1
    """Policy version written into the turns."""

    def prepare(self, pool: EnvPool) -> None:
        """Called before the first episode begins, while none is under way."""
        del pool

    @abstractmethod
    def choose(self, situations: Sequence[Situation], pool: EnvPool) -> dict[int, Choice | Failure | None]:
        """Think of an action for each of these episodes too, and say those that are ready.

        Returns:
            Actions by session, asked for now or earlier; at least one while any is asked for, the others in later calls. A
            failure where the environment could not say what it was asked, None where nobody knows an action.
        """

    def finish(self, sessions: Iterable[int]) -> None:
        """These episodes are over."""
        del sessions


class PolicyPlayer(Player):
    """The language model, through an engine."""

    def __init__(self, engine: Engine, chat: ChatFormat, sampling: Sampling, version: int) -> None:
        self._engine, self._chat, self._sampling, self.version = engine, chat, sampling, version
        self._digests: dict[int, str] = {}  # of what was asked last, by session

    def choose(self, situations: Sequence[Situation], pool: EnvPool) -> dict[int, Choice | Failure | None]:
        """See `Player`."""
        for s in situations:
            if s.rewound is not None:
                self._engine.rewind(s.session, s.rewound)
        requests = [Request(s.session, s.ids, stream(*s.key)) for s in situations]
        self._digests |= {request.session: digest(request.ids) for request in requests}
        said = self._engine.generate(requests, self._sampling)
        return {
            session: Choice(self._chat.action_text(a.ids), a.ids, a.logprobs, a.finished, self._digests[session])
            for session, a in said.items()
        }

    def finish(self, sessions: Iterable[int]) -> None:
        """See `Player`."""
        self._engine.release(sessions)


class ExpertPlayer(Player):
    """The environment's own expert: the demonstrator of the supervised stage and the ceiling of every table."""

    def __init__(self, chat: ChatFormat) -> None:
        self._chat = chat

    def choose(self, situations: Sequence[Situation], pool: EnvPool) -> dict[int, Choice | Failure | None]:
        """See `Player`."""
        answers = pool.ask_expert([s.session for s in situations])
        return {s.session: self._choice(answers[s.session]) for s in situations}

    def _choice(self, answer: str | Failure | None) -> Choice | Failure | None:
        return _said(self._chat, answer) if isinstance(answer, str) else answer


class RandomPlayer(Player):
    """A uniformly random admissible action: the floor of every table."""

    def __init__(self, chat: ChatFormat) -> None:
        self._chat = chat

    def prepare(self, pool: EnvPool) -> None:
        """The possible actions are asked for at every turn."""
        pool.expect_hints()

    def choose(self, situations: Sequence[Situation], pool: EnvPool) -> dict[int, Choice | Failure | None]:
        """See `Player`."""
        answers = pool.ask_admissible([s.session for s in situations])
        return {s.session: self._choice(answers[s.session], s.key) for s in situations}

    def _choice(self, answer: list[str] | Failure, key: tuple[object, ...]) -> Choice | Failure | None:
        if isinstance(answer, Failure):
            return answer
        if not answer:
            return None
        return _said(self._chat, answer[int(stream(*key).integers(len(answer)))])


def has_no_player(episode: Episode) -> bool:
    """Whether it did not begin because the world has no expert, or lists no actions."""
    return not episode.turns and episode.error == NOBODY


def _said(chat: ChatFormat, command: str) -> Choice:
    """A command as an agent would have written it, closing a thought that the prompt opens."""
    ids = tuple(chat.action_ids(command))
    return Choice(chat.action_text(ids), ids)
