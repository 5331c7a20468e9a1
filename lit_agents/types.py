"""The nouns. Everything that passes between two parts of the package is one of these, complete when it is made.

Dimension letters, here and everywhere else: B episodes, G members of a group, K turns of an episode, A action tokens of an
episode (all turns in one list; what the agent sampled and nothing else), S nodes of a token tree (its distinct tokens), U
distinct action tokens of a token tree, V vocabulary, H hidden size. A tensor's letters are the suffix of its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Signal = float | bool | str
"""One thing a world measured; what a reward may use."""


class StopReason(Enum):
    """Why an episode ended. Exactly one of ``is_terminal``, ``is_truncated`` and ``is_failure`` holds for each.

    The turn limit is terminal: the step budget is part of the task (the prompt's world ends there), so nothing is left to
    be earned after it. A truncated episode was cut before its world ended; it is trained on with the reward it had. A
    failure is the world's fault: it is in no baseline, no loss and no rate.
    """

    WON = "won"
    LOST = "lost"
    ENDED = "ended"
    """The world ended the episode without calling it a win or a loss, or an expert gave up."""
    TURN_LIMIT = "turn_limit"
    TRUNCATED = "truncated"
    """The world stopped for a reason outside its own rules."""
    CONTEXT_LIMIT = "context_limit"
    """The next observation, or the next action, would not fit the context."""
    UNFINISHED_ACTION = "unfinished_action"
    """The action reached its token limit without an end-of-turn token; it was not played."""
    ENVIRONMENT_CRASH = "environment_crash"
    """The environment raised."""
    ENVIRONMENT_TIMEOUT = "environment_timeout"
    """The environment did not answer in time."""
    ENVIRONMENT_DIED = "environment_died"
    """The environment's process is gone."""
    ENVIRONMENT_GARBAGE = "environment_garbage"
    """The environment's answer breaks its contract."""

    @property
    def is_failure(self) -> bool:
        """The world's fault."""
        return self.name.startswith("ENVIRONMENT_")

    @property
    def is_truncated(self) -> bool:
        """Cut before its end."""
        return self in (StopReason.TRUNCATED, StopReason.CONTEXT_LIMIT, StopReason.UNFINISHED_ACTION)

    @property
    def has_continuation(self) -> bool:
        """The last action was played and its world went on, so a critic's value may stand for the reward that was cut off.

        An unfinished action was never played. Nothing follows it, and its worth is its reward alone: if it were paid the
        critic's value, talking without end would cost an agent nothing.
        """
        return self in (StopReason.TRUNCATED, StopReason.CONTEXT_LIMIT)

    @property
    def is_terminal(self) -> bool:
        """Nothing could have been earned after it."""
        return not (self.is_failure or self.is_truncated)


@dataclass(frozen=True)
class Task:
    """One thing to do: a game, a household, a repository to repair."""

    family: str
    """What it is an instance of, e.g. ``w2-o3-q4``."""
    id: str
    """Unique within family and split; also keys the random streams of its episodes."""
    split: str
    """``train``, ``sft``, ``validation`` or ``test``; the sets are disjoint."""
    path: str = ""
    """Where its files are; empty where it needs none."""
    sha256: str = ""
    """Hash of what makes it the task that it is: the content of its files or, without files, what it is made from (a seed, a
    row). Part of the fingerprint of every result, and what the splits are compared by. Empty: the first observation is
    compared instead (see `lit_agents.environment.split_overlap`)."""
    rewards: int = 1
    """How many separate score increments a win is made of, at least; 1 means there is no intermediate score."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What results are broken down by, e.g. difficulty or task type."""


@dataclass(frozen=True)
class Turn:
    """One exchange: what the agent was shown, what it sampled, what the world made of it."""

    observation: str
    observation_ids: tuple[int, ...]
    """All that was put in front of the action since the previous one: template tokens, observation, template tokens."""
    action: str
    action_ids: tuple[int, ...]
    """As sampled, the end-of-turn token included (absent only in an unfinished action)."""
    action_logprobs: tuple[float, ...]
    """Of the distribution sampled from, in nats, one per action id; empty for a demonstration, which nobody sampled."""
    policy_version: int
    """Number of optimizer steps of its stage behind the weights that sampled it; -1 for a demonstration."""
    signals: Mapping[str, Signal]
    """After the action: ``score`` (total so far), ``gain`` (its change), ``valid`` (was it a command the world knows), and
    whatever else the environment measured. Empty where the action was not played."""
    prompt_digest: str = ""
    """`lit_agents.system.hashing.digest` of all tokens the engine was given before it sampled the action; empty for a
    demonstration. `lit_agents.audit` holds the tokens of the turns against it."""
    window_start: int = 1
    """The first turn, number 0, is always in sight, and so are those from this number on; what lies between was dropped from
    the context before this turn."""


@dataclass(frozen=True)
class Conversation:
    """Tokens as the model read and wrote them, from the first one on."""

    ids: list[int]
    places: list[int]
    """Where in there the agent's own tokens stand that were sampled in this conversation, with all before them in sight."""


@dataclass(frozen=True)
class Episode:
    """One attempt at a task, from the first observation to the stop."""

    task: Task
    member: int
    """Which of the group's attempts this is."""
    turns: tuple[Turn, ...]
    stop: StopReason
    max_score: float
    """The score of a win."""
    error: str = ""
    """For a failure: what happened."""
    round: int = 0
    """In training, which draw of tasks it belongs to: 0, or a later round that replaces groups without signal."""
    place: int = 0
    """In training, the number of its task among those of all processes in that draw; (round, place) names its group."""
    attempt: int = 0
    """How many times its environment had failed before."""

    @property
    def won(self) -> bool:
        """Whether the world said so; a full score alone is not a win."""
        return self.stop is StopReason.WON

    @property
    def score(self) -> float:
        """Total score when it ended."""
        return next((float(t.signals["score"]) for t in reversed(self.turns) if "score" in t.signals), 0.0)

    @property
    def conversations(self) -> list[Conversation]:
        """The whole conversation, if all turns stayed in sight; if not, another one from each time on that some were dropped.

        An action is trained where it was sampled: the places of all conversations, one after the other, are those of the A
        action tokens.
        """
        talks: list[Conversation] = []
        for k, turn in enumerate(self.turns):
            if k == 0 or turn.window_start != self.turns[k - 1].window_start:
                talks.append(Conversation(tokens_of(in_sight(self.turns[:k], turn.window_start)), []))
            ids, places = talks[-1].ids, talks[-1].places
            ids += turn.observation_ids
            places += range(len(ids), len(ids) + len(turn.action_ids))
            ids += turn.action_ids
        return talks

    @property
    def token_ids(self) -> list[int]:
        """What was in sight in the end: the whole conversation, if all turns stayed in sight."""
        return self.conversations[-1].ids if self.turns else []


def in_sight(turns: Sequence[Turn], window_start: int) -> list[Turn]:
    """The first turn and those from a number on."""
    return [*turns[:1], *turns[max(1, window_start) :]]


def tokens_of(turns: Sequence[Turn]) -> list[int]:
    """What was read and written, in order."""
    return [i for turn in turns for i in (*turn.observation_ids, *turn.action_ids)]


@dataclass(frozen=True)
class EpisodeGroup:
    """Attempts at one task that are compared with each other. Failures are not in it."""

    task: Task
    episodes: tuple[Episode, ...]


@dataclass(frozen=True)
class TurnRewards:
    """What each turn of one episode was worth."""

    values: tuple[float, ...]
    """(K,) the reward of each turn."""
    parts: Mapping[str, tuple[float, ...]]
    """The named parts, each (K,); they sum to ``values``."""

    @property
    def total(self) -> float:
        """The undiscounted return of the episode."""
        return float(sum(self.values))

    @staticmethod
    def of(parts: Mapping[str, Sequence[float]]) -> TurnRewards:
        """Sum named parts of equal length."""
        columns = {name: tuple(float(v) for v in part) for name, part in parts.items()}
        return TurnRewards(tuple(sum(row) for row in zip(*columns.values(), strict=True)), columns)


@dataclass(frozen=True)
class TokenTree:
    """Episodes as prefix tries in one flat sequence: every distinct token once, in depth-first order.

    Node j is node i itself or one before it in its conversation exactly when ``j <= i < ends[j]``; that is all an attention
    mask needs to know, and it keeps the tries of different episodes apart by itself.
    """

    ids_S: Tensor
    """Token of each node."""
    positions_S: Tensor
    """Depth of each node: the token's place in its conversation."""
    ends_S: Tensor
    """Index one past the node's last descendant."""
    sources_U: Tensor
    """The node after which a distinct action token was sampled."""
    targets_U: Tensor
    """The action token."""
    index_BA: Tensor
    """Which of the U each action token of each episode is; 0 on padding."""
    mask_BA: Tensor
    """True on action tokens, False on padding."""
    last_B: Tensor
    """The node of each episode's last token."""
    tokens: int
    """How many tokens the conversations have when each is counted in full; ``tokens / S`` is what sharing saves."""

    @property
    def leaves(self) -> list[int]:
        """The last node of every conversation that is not the beginning of another one."""
        return [node for node, end in enumerate(self.ends_S.tolist()) if end == node + 1]

    def path(self, node: int) -> Tensor:
        """A node and all before it in its conversation."""
        return (self.ends_S[: node + 1] > node).nonzero().squeeze(1)

    def to(self, device: torch.device) -> TokenTree:
        """A copy on a device."""
        return _moved(self, device)


@dataclass(frozen=True)
class TokenBatch:
    """What goes through the model at once: a token tree, and columns of one value per action token (0 on padding)."""

    tree: TokenTree
    weights_BA: Tensor
    """What each action token counts for in the loss; sums to 1 over the parts (and, averaged, the ranks) of a minibatch."""
    old_logprobs_BA: Tensor
    """At sampling time, as the sampler said."""
    own_logprobs_BA: Tensor
    """By the trainer's own computation with the weights of sampling time; equal to ``old_logprobs_BA`` where no correction is
    asked for."""
    ref_logprobs_BA: Tensor
    """Under the reference policy; equal to ``old_logprobs_BA`` where no KL is asked for."""
    advantages_BA: Tensor
    returns_BA: Tensor
    """What the value head is to predict; zeros for an algorithm without one."""
    values_BA: Tensor
    """The value head's prediction at collection; zeros for an algorithm without one."""
    policy_version: int
    """Of the weights its episodes were sampled with; -1 for demonstrations."""

    def to(self, device: torch.device) -> TokenBatch:
        """A copy on a device."""
        return _moved(self, device)


@dataclass(frozen=True)
class Minibatch:
    """What one optimizer step needs, in parts that go through the model one after the other."""

    parts: tuple[TokenBatch, ...]
    """None at all where no episode has a signal."""
    policy_version: int
    """Of the weights its episodes were sampled with; -1 for demonstrations."""

    def to(self, device: torch.device) -> Minibatch:
        """A copy on a device."""
        return replace(self, parts=tuple(part.to(device) for part in self.parts))


T = TypeVar("T", TokenTree, TokenBatch)


def _moved(noun: T, device: torch.device) -> T:
    """Every field that knows how to move, moved; the rest as it is."""
    moved = {f.name: v.to(device) for f in fields(noun) if hasattr(v := getattr(noun, f.name), "to")}
    return replace(noun, **moved)
