"""Playing episodes: many at once, every end typed, every token kept as it was sampled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lit_agents.environment.base import Start, Transition
from lit_agents.environment.pool.pool import EnvPool, Failure
from lit_agents.errors import BadInput
from lit_agents.policy.chat import ChatFormat
from lit_agents.rollout.agents import NOBODY, Choice, Player, Situation
from lit_agents.rollout.schedule import Limits
from lit_agents.types import Episode, Signal, StopReason, Task, Turn, in_sight, tokens_of


@dataclass(frozen=True)
class Job:
    """One episode to be played."""

    task: Task
    member: int
    key: tuple[object, ...]
    """Seed, iteration, task, member and attempt: all its random numbers depend on these alone."""
    round: int = 0
    place: int = 0
    attempt: int = 0
    """As in `Episode`, which notes all three."""

    def episode(self, turns: Sequence[Turn], stop: StopReason, max_score: float, error: str = "") -> Episode:
        """What it has become."""
        return Episode(
            self.task, self.member, tuple(turns), stop, max_score, error, self.round, self.place, self.attempt
        )


@dataclass
class _Draft:
    """An episode while it is played."""

    job: Job
    observation: str
    observation_ids: tuple[int, ...]
    max_score: float
    ids: list[int]
    turns: list[Turn] = field(default_factory=list)
    asked: bool = False
    """The player thinks of an action."""
    window_start: int = 1
    """As in `Turn`."""

    def episode(self, stop: StopReason, error: str = "") -> Episode:
        return self.job.episode(self.turns, stop, self.max_score, error)

    def given_up(self) -> Episode:
        """Nobody knows an action: not won, or if nobody did from the start, not played."""
        return self.episode(StopReason.ENDED) if self.turns else self.episode(StopReason.ENVIRONMENT_GARBAGE, NOBODY)


class Collector:
    """Plays jobs with a player. Episodes that end make room for the next; the order of the results is that of the jobs.

    Args:
        pool: where the environments run.
        chat: how texts become tokens.
        limits: how long an episode may be.
        max_tokens: longest action; must still fit into the context before an action is asked for. What an expert would say
            in more tokens is an unfinished action too: the agent could never say it.
        progress: called with the number of episodes that ended, as they end.
    """

    def __init__(
        self,
        pool: EnvPool,
        chat: ChatFormat,
        limits: Limits,
        max_tokens: int,
        progress: Callable[[int], None] = lambda ended: None,
    ) -> None:
        self._pool, self._chat, self._limits, self._max_tokens, self._progress = (
            pool,
            chat,
            limits,
            max_tokens,
            progress,
        )

    def collect(self, jobs: Sequence[Job], player: Player) -> list[Episode]:
        """Play every job to its end.

        Raises:
            BadInput: the first message alone does not fit the context.
        """
        waiting, drafts, done = deque(enumerate(jobs)), dict[int, _Draft](), dict[int, Episode]()
        places: dict[int, int] = {}  # session -> number of its job
        player.prepare(self._pool)
        try:
            while waiting or drafts:
                free = [s for s in range(self._limits.concurrent) if s not in drafts]
                begun = {s: waiting.popleft() for s in free[: len(waiting)]}
                places |= {s: number for s, (number, _) in begun.items()}
                ended = self._begin({s: job for s, (_, job) in begun.items()}, drafts)
                ended |= self._turn(drafts, player)
                for session, episode in ended.items():
                    done[places[session]] = episode
                    drafts.pop(session, None)
                player.finish(ended)
                self._progress(len(ended))
        finally:
            player.finish(drafts)
        return [done[i] for i in range(len(jobs))]

    def check(self, tasks: Sequence[Task], demonstrated: bool) -> None:
        """Begin an episode of each task, and refuse what no episode could go on from.

        Raises:
            BadInput: an environment fails again and again, a first message does not fit the context, or nobody demonstrates.
        """
        waiting = dict(enumerate(tasks))
        for last in (False, False, True):  # one that breaks now and then is no reason to refuse
            for session, start in self._pool.reset(waiting).items():
                if not isinstance(start, Failure):
                    self._draft(Job(waiting.pop(session), 0, ()), start)
                elif last:
                    reason = f"task {tasks[session].id} cannot be begun ({start.stop.value}: {start.error})"
                    raise BadInput("data.environment", reason, "Mend the environment, or make its tasks again.")
        if demonstrated:
            self._check_expert(tasks[0])

    def _check_expert(self, task: Task) -> None:
        for last in (False, False, True):
            answer = self._pool.ask_expert([0])[0]
            if answer is None:
                way_out = "Set sft to null, or use another world."
                raise BadInput("data.environment", "it has no expert to imitate.", way_out)
            if not isinstance(answer, Failure):
                return
            if last or isinstance(self._pool.reset({0: task})[0], Failure):
                reason = f"its expert does not begin task {task.id} ({answer.stop.value}: {answer.error[-300:]})"
                raise BadInput("data.environment", reason, "Mend it, set sft to null, or use another world.")

    def _begin(self, jobs: Mapping[int, Job], drafts: dict[int, _Draft]) -> dict[int, Episode]:
        """Reset environments; those that fail are ended episodes."""
        ended = {}
        for session, start in self._pool.reset({s: job.task for s, job in jobs.items()}).items():
            job = jobs[session]
            if isinstance(start, Failure):
                ended[session] = job.episode((), start.stop, 1.0, start.error)
                continue
            drafts[session] = self._draft(job, start)
        return ended

    def _draft(self, job: Job, start: Start) -> _Draft:
        ids = self._chat.first(start.observation)
        if not self._fits(ids):
            reason = (
                f"{self._limits.context} tokens; the first message of task {job.task.id} has {len(ids)}, and an action "
                f"of up to {self._max_tokens} must fit behind it."
            )
            raise BadInput(
                "data.limits.context", reason, "Raise it, or lower max_tokens of data.sampling and data.evaluation."
            )
        return _Draft(job, start.observation, tuple(ids), start.max_score, list(ids))

    def _turn(self, drafts: Mapping[int, _Draft], player: Player) -> dict[int, Episode]:
        """One action in every episode whose action is ready; those that ended by it."""
        ended: dict[int, Episode] = {}
        situations = []
        for session, draft in sorted(drafts.items()):
            if draft.asked:
                continue
            rewound = self._slide(draft)
            if not self._fits(draft.ids):
                ended[session] = draft.episode(StopReason.CONTEXT_LIMIT)
                continue
            key = (*draft.job.key, len(draft.turns))
            situations.append(Situation(session, tuple(draft.ids), key, rewound))
            draft.asked = True
        choices: dict[int, Choice] = {}
        for session, choice in self._chosen(drafts, situations, player).items():
            draft = drafts[session]
            draft.asked = False
            if choice is None:
                ended[session] = draft.given_up()
            elif isinstance(choice, Failure):
                ended[session] = draft.episode(choice.stop, choice.error)
            elif not choice.finished or len(choice.ids) > self._max_tokens:  # an expert could say more than the agent
                self._append(draft, choice, player.version, {})
                ended[session] = draft.episode(StopReason.UNFINISHED_ACTION)
            else:
                choices[session] = choice
        moves = {s: self._chat.command(choice.text) for s, choice in choices.items()}
        for session, result in self._pool.step(moves).items() if moves else ():
            if episode := self._after(drafts[session], choices[session], result, player.version):
                ended[session] = episode
        return ended

    def _fits(self, ids: Sequence[int]) -> bool:
        """Whether the longest action has its place behind them."""
        return len(ids) + self._max_tokens <= self._limits.context

    def _slide(self, draft: _Draft) -> int | None:
        """Drop old turns out of sight, if there are too many; if any were, how many first tokens stay."""
        window, count = self._limits.window, len(draft.turns)
        if window is None or (count - draft.window_start <= window.turns and self._fits(draft.ids)):
            return None
        for start in range(max(draft.window_start, count - window.keep), count + 1):
            ids = [*tokens_of(in_sight(draft.turns, start)), *draft.observation_ids]
            if self._fits(ids):
                break
        rewound = len(tokens_of(draft.turns[:1])) if start > draft.window_start else None
        draft.window_start, draft.ids = start, ids
        return rewound

    def _chosen(
        self, drafts: Mapping[int, _Draft], situations: Sequence[Situation], player: Player
    ) -> Mapping[int, Choice | Failure | None]:
        if not any(draft.asked for draft in drafts.values()):
            return {}
        chosen = player.choose(situations, self._pool)
        if not chosen:
            raise RuntimeError(f"{type(player).__name__} was asked for actions and returned none")
        return chosen

    def _after(self, draft: _Draft, choice: Choice, result: Transition | Failure, version: int) -> Episode | None:
        """Note what an action led to; the episode, if that ended it."""
        if isinstance(result, Failure):
            return draft.episode(result.stop, result.error)
        before = float(draft.turns[-1].signals["score"]) if draft.turns else 0.0
        own: dict[str, Signal] = {"score": result.score, "gain": result.score - before, "valid": result.valid}
        self._append(draft, choice, version, {**result.signals, **own})
        if result.terminated:
            kind = StopReason.WON if result.won else StopReason.LOST if result.lost else StopReason.ENDED
            return draft.episode(kind)
        if result.truncated:
            return draft.episode(StopReason.TRUNCATED)
        if len(draft.turns) >= self._limits.turns:
            return draft.episode(StopReason.TURN_LIMIT)
        draft.observation, draft.observation_ids = result.observation, tuple(self._chat.next(result.observation))
        draft.ids += draft.observation_ids
        return None

    def _append(self, draft: _Draft, choice: Choice, version: int, signals: Mapping[str, Signal]) -> None:
        seen, ids = draft.observation, draft.observation_ids
        own = (choice.text, choice.ids, choice.logprobs, version)
        turn = Turn(seen, ids, *own, signals, choice.prompt_digest, draft.window_start)
        draft.turns.append(turn)
        draft.ids += choice.ids
