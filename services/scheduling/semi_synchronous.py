"""The step budgets of `SemiSynchronous` (Stripelis & Ambite 2021, arXiv:2102.02849): everyone trains for about as long.

t_max = lambda · max over the members of their time for an epoch; a learner does max(1, ceil(t_max / its time for a
batch)) steps. Learners report both times, in milliseconds, with their updates. Of a member that missed a round the
times before count on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidWeight
from ..scaling import count
from .synchronous import Synchronous

PER_EPOCH, PER_BATCH = "processing_ms_per_epoch", "processing_ms_per_batch"
Reported = Mapping[str, Mapping[str, Any]]  # metadata of a round's updates by learner's name


@dataclass(frozen=True)
class SemiSynchronous(Synchronous):
    """Members have budgets of steps, so that they take about as long (Stripelis and Ambite 2021, arXiv:2102.02849).

    From the second round on; else it is as Synchronous.
    """

    def check_update(self, metadata: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Raise InvalidWeight, naming the key, for an update without its timings."""
        check_timings(metadata)


def budgets(rounds: Sequence[Reported], members: Iterable[str], scale: float, recompute: bool) -> dict[str, int]:
    """Steps of the next round of its `members`, by name; one that has reported no times has none.

    `rounds` holds the metadata that each learner sent with its update, round by round; `scale` is lambda. With
    `recompute` each member's newest times count; else t_max stays what round 1 made it, and each member's first count.
    """
    reported = [one for one in rounds if one]
    known: dict[str, Mapping[str, Any]] = {}
    for one in reported if recompute else reversed(reported):
        known.update(one)
    timed = {name: known[name] for name in members if name in known}
    slowest = timed if recompute else next(iter(reported), {})
    longest_ms = scale * max((float(metadata[PER_EPOCH]) for metadata in slowest.values()), default=0.0)
    return {name: _steps(longest_ms / float(metadata[PER_BATCH])) for name, metadata in timed.items()}


def _steps(exact: float) -> int:
    """Rounded up, but for what is a whole number and rounding errors."""
    return max(1, math.ceil(exact - 1e-9))


def check_timings(metadata: Mapping[str, Any]) -> None:
    """Raise InvalidWeight, naming the key, for an update without the times that budgets are made of."""
    for key in (PER_EPOCH, PER_BATCH):
        if metadata.get(key) is None:
            why = f"the update's metadata has no {key!r}, which SemiSynchronous needs: return it from train()"
            raise InvalidWeight(why, key=key)
        if count(metadata, key) <= 0:
            raise InvalidWeight(f"metadata[{key!r}] must be above 0", key=key, got=metadata[key])
