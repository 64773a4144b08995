"""FedAsync: each update is mixed into the community model as it comes (Xie et al. 2019, arXiv:1903.03934).

W <- (1 - a_t)·W + a_t·w with a_t = alpha·s(t), t the community models made since the one that w was trained from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..errors import AggregationFailed
from ..parameters import number
from ..weights import Array
from .base import Arrivals, State, View
from .fedavg import mean
from .staleness import Fading


@dataclass(frozen=True)
class FedAsync(Fading):
    """Each update is mixed into the model as it comes (Xie et al. 2019, arXiv:1903.03934).

    Scaling factors are ignored. `alpha` 0.6 and the parameters of s are the paper's.
    """

    alpha: Annotated[float, number(above=0, most=1, meaning="how much of the model a fresh update replaces")] = 0.6

    elementwise: ClassVar[bool] = True
    rounds: ClassVar[bool] = False
    arrivals: ClassVar[Arrivals] = Arrivals()

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. Of several updates the mean of their steps is taken."""
        if not views:
            raise AggregationFailed("there is no update to mix in")
        shares = [self.alpha * self.weight(view.staleness) / len(views) for view in views]
        kept = 1.0 - math.fsum(shares)
        models = [view.arrays for view in views]
        if kept <= 0:
            return mean(models, shares, out), state
        return mean([views[0].current, *models], [kept, *shares], out), state
