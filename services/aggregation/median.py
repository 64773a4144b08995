"""Median: of every coordinate the middle value (Yin et al. 2018, arXiv:1803.01498); just under half may lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..errors import AggregationFailed
from ..weights import Array
from .base import State, View
from .order_statistics import middle_mean


@dataclass(frozen=True)
class Median:
    """Of each coordinate the middle value, of an even count the mean of two (Yin et al. 2018, arXiv:1803.01498).

    Every update counts the same: scaling factors are ignored.
    """

    elementwise: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. An update whose factor is 0 counts too."""
        if not views:
            raise AggregationFailed("there is no update to take the median of")
        return middle_mean([view.arrays for view in views], (len(views) - 1) // 2, out), state
