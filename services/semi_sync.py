"""The step budgets of `SemiSynchronous` (Stripelis & Ambite 2021, arXiv:2102.02849): everyone trains for about as long.

t_max = lambda · max over the members of their time for an epoch; a learner does max(1, ceil(t_max / its time for a
batch)) steps. Learners report both times, in milliseconds, with their updates. Read from the run's rounds, so there is
nothing to save.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .rounds import RoundState
from .timings import PER_BATCH, PER_EPOCH


def budgets(rounds: Sequence[RoundState], scale: float, recompute: bool) -> dict[str, int]:
    """Steps of the next round by learner's name; a learner that has reported no times has none.

    `scale` is lambda. With `recompute` the newest times count, else those of round 1, and of a later learner its first.
    """
    reported = [[(task.learner, task.outcome.metadata) for task in one.accepted if task.outcome] for one in rounds]
    reported = [one for one in reported if one]
    if not reported:
        return {}
    base = reported[-1] if recompute else reported[0]
    longest_ms = scale * max(float(metadata[PER_EPOCH]) for _, metadata in base)
    per_batch: dict[str, float] = {}
    for one in reported:
        for name, metadata in one:
            if recompute or name not in per_batch:
                per_batch[name] = float(metadata[PER_BATCH])
    return {name: max(1, math.ceil(longest_ms / ms)) for name, ms in per_batch.items()}
