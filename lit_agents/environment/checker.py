"""Does an environment keep its contract? Run `check_env` on a new one first; the pool checks each answer too."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.environment.split_overlap import SPLITS, TaskSet, identities, overlaps
from lit_agents.errors import BadInput
from lit_agents.types import Task

LONGEST_EPISODE = 200  # actions an expert may take to win
JUNK = ("xyzzy", "", " \n ", "look\nopen door", "\x00\x1b[2J", "\ud800 \U0001f600", "quit", "restart", "x" * 100_000)
"""What a small model may well write."""


def start_fault(answer: object) -> str:
    """What is wrong with the answer to a reset; empty if nothing."""
    if not isinstance(answer, Start):
        return f"reset returned {type(answer).__name__}, not a Start"
    if fault := _text_fault(answer.observation):
        return f"the first observation {fault}"
    if not answer.observation.strip():
        return "the first observation is empty"
    good = _is_number(answer.max_score) and answer.max_score > 0
    return "" if good else f"max_score is {answer.max_score!r}, not a finite number above 0"


def transition_fault(answer: object) -> str:
    """What is wrong with the answer to a step; empty if nothing."""
    if not isinstance(answer, Transition):
        return f"step returned {type(answer).__name__}, not a Transition"
    if fault := _text_fault(answer.observation):
        return f"an observation {fault}"
    if not _is_number(answer.score):
        return f"the score is {answer.score!r}, not a finite number"
    for field in fields(Transition):
        if field.type == "bool" and not isinstance(getattr(answer, field.name), bool):
            return f"{field.name} is {getattr(answer, field.name)!r}, not a bool"
    if answer.won and answer.lost:
        return "an episode is both won and lost"
    if (answer.won or answer.lost) and not answer.terminated:
        return f"an episode is {'won' if answer.won else 'lost'} but not terminated"
    return _signals_fault(answer)


def expert_fault(answer: object) -> str:
    """What is wrong with an expert's action; empty if nothing."""
    return "" if answer is None or isinstance(answer, str) else f"expert_action returned {answer!r}, not a str or None"


def admissible_fault(answer: object) -> str:
    """What is wrong with a list of possible actions; empty if nothing."""
    good = isinstance(answer, list) and all(isinstance(action, str) for action in answer)
    return "" if good else f"admissible_actions returned {answer!r:.80}, not a list of str"


def _signals_fault(transition: Transition) -> str:
    for name, value in transition.signals.items():
        if name in ("score", "gain", "valid"):
            return f"the signal name {name!r} is taken"
        if not isinstance(name, str) or not (isinstance(value, str | bool) or _is_number(value)):
            return f"the signal {name!r} is {value!r}, not a finite number, a bool or a str"
    return ""


def _text_fault(text: object) -> str:
    if not isinstance(text, str):
        return f"is {type(text).__name__}, not str"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has a lone surrogate, which no tokenizer takes"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class _Play:
    """What one episode was like."""

    answers: tuple[object, ...]
    fault: str
    won: bool
    increments: int

    @property
    def seen(self) -> str:
        """To compare plays with; by text, since answers of the wrong type may not compare."""
        return repr(self.answers)


def check_env(environment: TextEnvironment, task: Task) -> list[str]:
    """Play a task several times and name each fault found; an empty list is good news.

    The environment itself is left alone: copies of it are played, as in the pool.

    Args:
        environment: not reset yet.
        task: one of its tasks.
    """
    try:
        blank = pickle.dumps(environment)
    except Exception as error:
        return [f"it cannot be pickled: {error}"]
    faults: list[str] = []
    first, twin = pickle.loads(blank), pickle.loads(blank)
    try:
        expert, junk = _play(first, task, _by_expert), _play(first, task, _junk())
        faults += [play.fault for play in (expert, junk) if play.fault]
        if not faults:
            faults += _outcome_faults(first, task, expert)
            faults += _repetition_faults(first, twin, task, expert, junk)
    finally:
        faults += _close_faults(first) + _close_faults(twin) + _close_faults(pickle.loads(blank))
    faults += _fingerprint_faults(pickle.loads(blank))
    return list(dict.fromkeys(faults + _task_faults(pickle.loads(blank), task)))


Player = Callable[[TextEnvironment], str | None]


def _by_expert(environment: TextEnvironment) -> str | None:
    return environment.expert_action()


def _junk() -> Player:
    remaining = iter(JUNK)
    return lambda _: next(remaining, None)


def _play(environment: TextEnvironment, task: Task, player: Player, first: Iterable[str] = ()) -> _Play:
    """One episode: the actions of ``first``, then the player's, until the end or the first fault."""
    answers: list[object] = []
    won, increments, score, opening = False, 0, 0.0, iter(first)
    asked = "reset"
    try:
        answers.append(environment.reset(task))
        fault = start_fault(answers[-1])
        while not fault and len(answers) < LONGEST_EPISODE:
            asked = "admissible_actions"
            possible = environment.admissible_actions()
            asked = "expert_action"
            action = next(opening, None)
            action = player(environment) if action is None else action
            fault = admissible_fault(possible) or expert_fault(action)
            if fault or action is None:
                break
            asked = f"step on {action!r:.40}"
            answer = environment.step(action)
            answers.append(answer)
            fault = transition_fault(answer)
            if not fault:
                won, increments, score = answer.won, increments + (answer.score > score), answer.score
                if answer.terminated or answer.truncated:
                    break
    except Exception as error:
        fault = f"{asked} raised {type(error).__name__}: {error}"
    return _Play(tuple(answers), fault, won, increments)


def _outcome_faults(environment: TextEnvironment, task: Task, expert: _Play) -> list[str]:
    if len(expert.answers) == 1:  # no expert
        return []
    if not expert.won:
        return ["the expert does not win"]
    faults = []
    start, end = expert.answers[0], expert.answers[-1]
    if isinstance(start, Start) and isinstance(end, Transition) and not math.isclose(end.score, start.max_score):
        faults.append(f"a win scores {end.score}, and max_score is {start.max_score}")
    if expert.increments < task.rewards or expert.increments > task.rewards == 1:
        faults.append(f"a win has {expert.increments} score increments, and the task's rewards are {task.rewards}")
    detour = _play(environment, task, _by_expert, first=JUNK[:4])
    ended_early = len(detour.answers) <= 5
    if detour.fault or not (detour.won or ended_early):
        faults.append(f"the expert does not win after a detour {detour.fault}".strip())
    return faults


def _repetition_faults(
    used: TextEnvironment, twin: TextEnvironment, task: Task, expert: _Play, junk: _Play
) -> list[str]:
    """``used`` is in the middle of an episode or at an end of one; the twin was never played."""
    faults = []
    if _play(twin, task, _by_expert).seen != expert.seen or _play(twin, task, _junk()).seen != junk.seen:
        faults.append("twin runs differ")
    _play(used, task, lambda _: None, first=JUNK[:2])
    again = _play(used, task, _by_expert)
    if again.seen != expert.seen or _play(used, task, _junk()).seen != junk.seen:
        faults.append("state leaks from one episode into the next")
    return faults


def _close_faults(environment: TextEnvironment) -> list[str]:
    try:
        environment.close()
        environment.close()
    except Exception as error:
        return [f"close raised {type(error).__name__}: {error}; it may be called twice, and before reset"]
    return []


def _fingerprint_faults(environment: TextEnvironment) -> list[str]:
    found = environment.fingerprint()
    faults = [f"the fingerprint does not say {name}" for name in ("commands", "admissible") if name not in found]
    if "admissible" in found and found["admissible"] not in ("shown", "hidden"):
        faults.append(f"the fingerprint's admissible is {found['admissible']!r}, not 'shown' or 'hidden'")
    return faults


def _task_faults(environment: TextEnvironment, task: Task) -> list[str]:
    faults: list[str] = []
    sets: list[TaskSet] = []
    for split in SPLITS:
        try:
            tasks = environment.tasks(task.family, split, 2)
            again, one = (environment.tasks(task.family, split, count) for count in (2, 1))
            if again != tasks or one != tasks[:1]:
                faults.append(f"the tasks of split {split} are not the same ones each time")
        except BadInput as error:
            if split == task.split:
                faults.append(f"no two tasks in the task's own split: {error}")
            continue
        except Exception as error:
            faults.append(f"tasks raised {type(error).__name__}: {error}")
            continue
        if len(tasks) != 2:
            faults.append(f"tasks returns {len(tasks)} of split {split} where 2 are asked for, and does not say why")
        if wrong := [each for each in tasks if each.split != split]:
            faults.append(f"task {wrong[0].id} of split {split} says that its split is {wrong[0].split!r}")
        sets.append(TaskSet(split, tasks))
    known = identities(sets, lambda asked: [_first_observation(environment, each) for each in asked])
    return faults + [found.sentence.removesuffix(".") for found in overlaps(sets, known)]


def _first_observation(environment: TextEnvironment, task: Task) -> str | None:
    try:
        return environment.reset(task).observation
    except Exception:  # what is wrong with a reset is named where tasks are played
        return None
