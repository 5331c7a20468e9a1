"""What a reward returns, held against its contract: before anything is paid for, and at every call."""

from __future__ import annotations

from numbers import Real

from lit_agents.errors import BadInput
from lit_agents.reward.base import Reward
from lit_agents.types import Episode, Signal, StopReason, Task, Turn, TurnRewards

_WAY_OUT = "Return TurnRewards.of({name: one number for each of episode.turns}); see lit_agents.reward.base."


def worth(reward: Reward, episode: Episode) -> TurnRewards:
    """What each turn of an episode is worth.

    Raises:
        BadInput: the reward does not return a number for each turn.
    """
    found: object = reward(episode)
    where, turns = f"reward {type(reward).__name__}", len(episode.turns)
    if not isinstance(found, TurnRewards):
        raise BadInput(where, f"it returns {type(found).__name__}, not TurnRewards.", _WAY_OUT)
    for name, values in {"values": found.values, **found.parts}.items():
        if len(values) != turns:
            reason = f"{name} has {len(values)} numbers for an episode of {turns} turns."
            raise BadInput(where, reason, _WAY_OUT)
        if wrong := [value for value in values if isinstance(value, bool) or not isinstance(value, Real)]:
            raise BadInput(where, f"{name} holds {wrong[0]!r}, which is not a number.", _WAY_OUT)
    return found


def check_reward(reward: Reward, task: Task) -> None:
    """Ask a reward about two made-up episodes, before anything is loaded: no action was finished; one was, and was played.

    Args:
        task: of both.

    Raises:
        BadInput: it raises, or does not return a number for each turn.
    """
    played = _turn({"score": 0.0, "gain": 0.0, "valid": True})
    for turns in ((_turn({}),), (played, played, _turn({}))):
        episode = Episode(task, 0, turns, StopReason.UNFINISHED_ACTION, 1.0)
        try:
            worth(reward, episode)
        except BadInput:
            raise
        except Exception as error:
            if turns[0].signals and isinstance(error, KeyError | TypeError):
                return  # it reads what its own environment measures, which cannot be made up: `worth` sees real episodes
            last = f"an episode of {len(turns)} turns whose last action was not finished, and so has no signals"
            reason = f"it raises {type(error).__name__} ({error}) on {last}."
            raise BadInput(f"reward {type(reward).__name__}", reason, _WAY_OUT) from error


def _turn(signals: dict[str, Signal]) -> Turn:
    return Turn("observation", (0,), "action", (0,), (0.0,), 0, signals)
