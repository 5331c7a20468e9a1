"""Are the tokens that were trained those that were sampled? Two records of a run, held against each other.

One is written from the episodes (`lit_agents.evaluation.episode_store`), the other from the batches the trainer was given
(`lit_agents.run.callbacks.token_log`); between them lie rewards, groups, tries, masks and batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from lit_agents.algorithm.token_tree import token_tree
from lit_agents.evaluation.audit.findings import Findings
from lit_agents.evaluation.episode_store import StoredEpisode, in_parts
from lit_agents.policy.causal_lm import CausalLMPolicy
from lit_agents.policy.chat import ChatFormat
from lit_agents.system.hashing import digest, digest_floats
from lit_agents.types import Episode, StopReason, in_sight, tokens_of

Runs = tuple[tuple[int, tuple[int, ...], str], ...]
"""Trained tokens: per uninterrupted run the place of its first one, the run, and the digest of all that stands before it."""


def own_runs(episode: Episode) -> Runs:
    """Where the agent's own tokens stand, from its turns alone."""
    prompts = [prompt_of(episode, k) for k in range(len(episode.turns))]
    return tuple(
        (len(prompt), turn.action_ids, digest(prompt)) for prompt, turn in zip(prompts, episode.turns, strict=True)
    )


def prompt_of(episode: Episode, k: int) -> list[int]:
    """What was in sight before the action of turn k."""
    turn = episode.turns[k]
    return [*tokens_of(in_sight(episode.turns[:k], turn.window_start)), *turn.observation_ids]


def check_episode(stored: StoredEpisode, chat: ChatFormat, findings: Findings) -> None:
    """One episode by itself: prompts are prefixes, texts are those of the tokens, the end of a turn is where it should be."""
    episode, end = stored.episode, chat.end_id
    name = f"{stored.phase}, iteration {stored.iteration}, task {episode.task.id}, member {episode.member}"
    findings.checked["episodes"] += 1
    for k, turn in enumerate(episode.turns):
        here = f"{name}, turn {k + 1}"
        rendered = chat.next(turn.observation) if k else chat.first(turn.observation)
        findings.expect(
            list(turn.observation_ids) == rendered,
            "observations",
            f"{here}: the observation's tokens are not its text's",
        )
        sampled = turn.policy_version >= 0
        if sampled:
            fault = f"{here}: the turns before it are not what the action was sampled after"
            findings.expect(
                digest(prompt_of(episode, k)) == turn.prompt_digest, "prompts that continue the turns before", fault
            )
        findings.expect(
            len(turn.action_logprobs) == (len(turn.action_ids) if sampled else 0),
            "actions",
            f"{here}: {len(turn.action_logprobs)} log-probabilities for {len(turn.action_ids)} tokens",
        )
        unfinished = k == len(episode.turns) - 1 and episode.stop is StopReason.UNFINISHED_ACTION
        ends = [i for i, token in enumerate(turn.action_ids) if token == end]
        good = not ends if unfinished else ends == [len(turn.action_ids) - 1]
        findings.expect(good, "ends of turns", f"{here}: the end-of-turn token stands at {ends}")
        findings.expect(
            chat.action_text(turn.action_ids) == turn.action, "texts", f"{here}: the action's text is not its tokens'"
        )
    demonstrated = all(turn.policy_version < 0 for turn in episode.turns)
    good = not episode.turns or demonstrated == (stored.phase == "sft")
    fault = f"{name}: demonstrated where the policy plays, or sampled where the expert does"
    findings.expect(good, "whose actions they are", fault)
    versions = {turn.policy_version for turn in episode.turns}
    findings.expect(len(versions) <= 1, "versions", f"{name}: sampled by several versions of the policy {versions}")


Row = tuple[str, Runs, str, int]
"""Conversation, trained tokens, their log-probabilities, version."""
Place = tuple[str, int]
"""A stage and one of its iterations, from 1."""


@dataclass(frozen=True)
class Plan:
    """What a stage should train on."""

    passes: int
    """How often it goes through an iteration's episodes."""
    group_size: int = 1
    """Episodes of a task; if there are more of one, its groups cannot be told apart, and none of them is missed."""
    compares: bool = False
    """Members of a group are compared, so one that is left alone is not trained on."""
    skips: bool = False
    """Episodes without advantage may be left out: those whose return is the mean of their group's."""


class TrainedAudit:
    """Every trained row must be an episode of its iteration, with the mask on all its own sampled tokens and nothing else.

    And every episode that can teach something must be among the trained rows.

    Args:
        plans: by stage.
    """

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = plans
        self._sampled: dict[Place, Counter[Row]] = {}
        self._trained: dict[Place, Counter[Row]] = {}
        self._groups: dict[Place, dict[str, list[tuple[Row, float]]]] = {}

    def add_sampled(self, stored: StoredEpisode) -> Row | None:
        """An episode; those that are not for training, and failures, may not be trained: they have no row."""
        episode, place = stored.episode, (stored.phase, stored.iteration)
        if stored.phase not in self._plans or episode.stop.is_failure or not episode.turns or stored.rewards is None:
            return None
        floats = list(chain.from_iterable(turn.action_logprobs for turn in episode.turns))
        floats = floats or [0.0] * sum(len(turn.action_ids) for turn in episode.turns)  # nobody sampled a demonstration
        row = (digest(episode.token_ids), own_runs(episode), digest_floats(floats), episode.turns[0].policy_version)
        self._sampled.setdefault(place, Counter())[row] += 1
        members = self._groups.setdefault(place, {}).setdefault(episode.task.id, [])
        members.append((row, stored.rewards.total))
        return row

    def add_trained(self, content: Mapping[str, Any]) -> Row:
        """A line of ``trained.jsonl``."""
        runs = tuple((int(place), tuple(ids), before) for place, ids, before in content["runs"])
        row = (content["conversation"], runs, content["logprobs"], content["version"])
        self._trained.setdefault((content["stage"], content["iteration"]), Counter())[row] += 1
        return row

    def check(self, findings: Findings) -> None:
        """Hold the two against each other."""
        for stage, plan in self._plans.items():
            sampled = {i: rows for (s, i), rows in self._sampled.items() if s == stage}
            trained = {i: rows for (s, i), rows in self._trained.items() if s == stage}
            demonstrated = stage == "sft"  # collected once, trained in every iteration
            for iteration in range(1, max([*sampled, *trained], default=0) + 1):
                source = 1 if demonstrated else iteration
                rows, here = trained.get(iteration, Counter()), f"{stage}, iteration {iteration}"
                self._check_rows(rows, sampled.get(source, Counter()), plan.passes, here, findings)
                self._check_missing(rows, (stage, source), plan, here, findings)

    def _check_rows(
        self, rows: Counter[Row], sampled: Counter[Row], passes: int, here: str, findings: Findings
    ) -> None:
        """Nothing else is trained than what was sampled."""
        for row, count in rows.items():
            findings.checked["trained rows"] += count
            findings.checked["trained tokens"] += count * sum(len(ids) for _, ids, _ in row[1])
            if row not in sampled:
                findings.faults.append(f"{here}: trained on {_difference(row, sampled)}")
            elif count % passes or count > passes * sampled[row]:
                times = f"{count} times, sampled {sampled[row]} times, with {passes} passes"
                findings.faults.append(f"{here}: an episode of {len(row[1])} turns was trained {times}")

    def _check_missing(self, rows: Counter[Row], place: Place, plan: Plan, here: str, findings: Findings) -> None:
        """What was sampled is trained, or there is a reason."""
        for task, members in self._groups.get(place, {}).items():
            mean = sum(value for _, value in members) / len(members)
            for row, value in members:
                if row in rows:
                    continue
                findings.checked["episodes left out of the loss"] += 1
                alone = plan.compares and (len(members) < 2 or len(members) > plan.group_size)
                silent = plan.skips and abs(value - mean) <= 1e-6 * max(1.0, abs(mean))
                if not (alone or silent):
                    findings.faults.append(
                        f"{here}: an episode of task {task} with return {value:.4g} was not trained on"
                    )


def _difference(row: Row, sampled: Mapping[Row, int]) -> str:
    """What distinguishes a trained row from the nearest episode there is."""
    conversation, runs, _, version = row
    mine = _by_place(runs)
    if not sampled:
        return "a row, but no episode was kept"
    nearest = max(
        sampled, key=lambda other: (other[0] == conversation, len(mine.items() & _by_place(other[1]).items()))
    )
    theirs = _by_place(nearest[1])
    if extra := sorted(mine.keys() - theirs.keys()):
        return f"place {extra[0][1]} and {len(extra) - 1} more, which the agent did not sample"
    if missing := sorted(theirs.keys() - mine.keys()):
        return f"a row without place {missing[0][1]} and {len(missing) - 1} more, which the agent sampled"
    if other := sorted(place for place in mine if mine[place] != theirs[place]):
        return f"token {mine[other[0]]} at place {other[0][1]}, where {theirs[other[0]]} was sampled"
    if (nearest[0], [before for *_, before in nearest[1]]) != (conversation, [before for *_, before in runs]):
        return "a conversation whose observations are not those the agent was shown"
    if nearest[3] != version:
        return f"version {version}, sampled by {nearest[3]}"
    return "other log-probabilities than those noted when it was sampled"


def _by_place(runs: Runs) -> dict[tuple[int, int], int]:
    """Tokens by number of their conversation and place in it; in another conversation places begin anew."""
    found: dict[tuple[int, int], int] = {}
    talk, last = 0, 0
    for place, ids, _ in runs:
        talk, last = talk + (place < last), place
        found |= {(talk, place + i): token for i, token in enumerate(ids)}
    return found


@dataclass(frozen=True)
class Gap:
    """Log-probabilities computed again, against those noted at sampling time; nats."""

    tokens: int
    mean: float
    largest: float


@torch.no_grad()
def logprob_gap(
    policy: CausalLMPolicy, episodes: Iterable[StoredEpisode], temperature: float, tolerance: float, together: int = 16
) -> Iterator[tuple[StoredEpisode, Gap]]:
    """Each episode's gap.

    Args:
        policy: with the weights that sampled them.
        temperature: at which they were sampled.
        tolerance: a gap above it is computed once more in float32: some tokens of a sound episode come out nats apart in
            bfloat16, depending on what is computed beside them.
        together: episodes in a forward pass.
    """
    for part in in_parts(episodes, together):
        for stored, gap in zip(part, _gaps(policy, part, temperature), strict=True):
            if not gap.largest <= tolerance:
                with policy.in_full_precision():
                    (gap,) = _gaps(policy, [stored], temperature)
            yield stored, gap


def _gaps(policy: CausalLMPolicy, episodes: Sequence[StoredEpisode], temperature: float) -> list[Gap]:
    tree = token_tree([stored.episode for stored in episodes]).to(policy.device)
    again_BA = policy.score(tree, temperature).logprobs_BA.double().cpu()
    gaps = []
    for stored, again_A in zip(episodes, again_BA, strict=True):
        noted = torch.tensor([p for t in stored.episode.turns for p in t.action_logprobs], dtype=torch.float64)
        gap = (again_A[: len(noted)] - noted).abs()
        gaps.append(Gap(len(noted), float(gap.mean()), float(gap.max())))
    return gaps
