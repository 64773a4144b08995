"""FedNova: updates are compared by what one local step did, however many each learner took (Wang et al. 2020).

"Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS 2020 (arXiv:2007.07481),
W + tau_eff * sum of p_k * (w_k - W) / tau_k, with p_k normalised and tau_eff = sum of p_k * tau_k. tau_k, the L1 norm
of a_k in the paper, is by how many plain steps a learner's own optimizer went: with momentum, decay or a proximal term
more or fewer than its batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import AggregationFailed
from ..scaling import count
from ..weights import Array, copy
from .base import State, View
from .fedavg import shares_of
from .pseudo_gradients import step

STEPS, BATCHES = "effective_steps", "num_completed_batches"


@dataclass(frozen=True)
class FedNova:
    """A mean of steps: who does many pulls no harder (Wang et al. 2020, arXiv:2007.07481).

    Weighted by the scaling factors p_k; tau_k is the `effective_steps` of the update's metadata. Where a learner tells
    none, its `num_completed_batches` count, which is right for plain SGD. It moves trainable floating tensors; the
    others take the mean weighted by p_k. When all took equally many steps it is FedAvg.
    """

    def check_update(self, metadata: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Raise InvalidWeight unless the update says how many steps it took."""
        _steps(metadata)

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. Updates with factor 0, or of no step, are left out."""
        given = zip(views, factors, (_steps(view.metadata) for view in views), strict=True)
        kept = [(view, factor, steps) for view, factor, steps in given if factor > 0 and steps > 0]
        if not kept:
            raise AggregationFailed(f"no update has a scaling factor and {BATCHES} above 0: nothing can be averaged")
        if len(kept) == 1:
            return copy(kept[0][0].arrays, out), state
        weights = [factor for _, factor, _ in kept]
        shares, steps = shares_of(weights), [taken for *_, taken in kept]
        effective = math.fsum(share * taken for share, taken in zip(shares, steps, strict=True))
        strides = [share * (effective / taken) for share, taken in zip(shares, steps, strict=True)]
        return step([view for view, *_ in kept], weights, strides, out), state


def _steps(metadata: Mapping[str, Any]) -> float:
    key = BATCHES if metadata.get(STEPS) is None else STEPS
    return count(metadata, key, 'choose another aggregation_rule than "FedNova"')
