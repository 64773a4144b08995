"""TrimmedMean: of every coordinate the mean without its extreme values (Yin et al. 2018, arXiv:1803.01498)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..errors import AggregationFailed
from ..parameters import Checked, number
from ..weights import Array
from .base import State, View
from .order_statistics import middle_mean


@dataclass(frozen=True)
class TrimmedMean(Checked):
    """Of each coordinate the mean without the smallest and the largest values (Yin et al. 2018, arXiv:1803.01498).

    Left out are floor(`trim_ratio` x updates) at each end. With few updates that may be none: 0.1 of 9. Every update
    counts the same: scaling factors are ignored.
    """

    elementwise: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    trim_ratio: Annotated[float, number(0, below=0.5, meaning="share of the updates that goes at each end")] = 0.1

    def trimmed(self, count: int) -> int:
        """How many values of `count` go at each end."""
        return min(math.floor(self.trim_ratio * count + 1e-9), (count - 1) // 2)  # 0.29 x 100 is 28.999999999999996

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. An update whose factor is 0 counts too."""
        if not views:
            raise AggregationFailed("there is no update to take the trimmed mean of")
        return middle_mean([view.arrays for view in views], self.trimmed(len(views)), out), state
