"""When a measurement is none: the circuit breaker of tests and validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lit_agents.errors import BadInput
from lit_agents.types import Episode

GO_ON = "go on with --ckpt_path last"


def refuse_broken(episodes: Sequence[Episode], most: float, where: str, then: str) -> None:
    """Stop where the environment broke too many attempts, or all: what is left is no sample of the tasks.

    Args:
        episodes: all attempts, those that were tried again included.
        most: share of them that may fail.
        where: what was measured.
        then: what to do when the environment is mended.

    Raises:
        BadInput: with how they failed.
    """
    failed = [episode for episode in episodes if episode.stop.is_failure]
    if not failed or (len(failed) < len(episodes) and len(failed) <= most * len(episodes)):
        return
    kinds = dict(Counter(episode.stop.value for episode in failed))
    reason = f"{len(failed)} of {len(episodes)} episodes of {where} failed ({kinds}). One error: {failed[-1].error}"
    way_out = f"Mend the environment, then {then}; or raise data.schedule.max_failures."
    raise BadInput("data.environment", reason, way_out)
