"""The step budgets of `SemiSynchronous` (Stripelis & Ambite 2021, arXiv:2102.02849): everyone trains for about as long.

t_max = lambda · max over the members of their time for an epoch; a learner does max(1, ceil(t_max / its time for a
batch)) steps. Learners report both times, in milliseconds, with their updates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidWeight
from ..scaling import count
from .synchronous import Synchronous

PER_EPOCH, PER_BATCH = "processing_ms_per_epoch", "processing_ms_per_batch"
Reported = Mapping[str, Mapping[str, Any]]  # metadata of a round's updates by learner's name


@dataclass(frozen=True)
class SemiSynchronous(Synchronous):
    """As Synchronous; from the second round on every member has a step budget, so that they take about as long."""

    def check_update(self, metadata: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Raise InvalidWeight, naming the key, for an update without its timings."""
        check_timings(metadata)


def budgets(rounds: Sequence[Reported], scale: float, recompute: bool) -> dict[str, int]:
    """Steps of the next round by learner's name; a learner that has reported no times has none.

    `rounds` holds the metadata that each learner sent with its update, round by round; `scale` is lambda. With
    `recompute` the newest times count, else those of round 1, and of a later learner its first.
    """
    reported = [one for one in rounds if one]
    if not reported:
        return {}
    base = reported[-1] if recompute else reported[0]
    longest_ms = scale * max(float(metadata[PER_EPOCH]) for metadata in base.values())
    per_batch: dict[str, float] = {}
    for one in reported:
        for name, metadata in one.items():
            if recompute or name not in per_batch:
                per_batch[name] = float(metadata[PER_BATCH])
    return {name: max(1, math.ceil(longest_ms / ms)) for name, ms in per_batch.items()}


def check_timings(metadata: Mapping[str, Any]) -> None:
    """Raise InvalidWeight, naming the key, for an update without the times that budgets are made of."""
    for key in (PER_EPOCH, PER_BATCH):
        if metadata.get(key) is None:
            why = f"the update's metadata has no {key!r}, which SemiSynchronous needs: return it from train()"
            raise InvalidWeight(why, key=key)
        if count(metadata, key) <= 0:
            raise InvalidWeight(f"metadata[{key!r}] must be above 0", key=key, got=metadata[key])
