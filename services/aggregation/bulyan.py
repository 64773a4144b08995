"""Bulyan: Krum chooses updates, then each coordinate takes the mean of the values around the median.

El Mhamdi, Guerraoui and Rouault 2018, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML
(arXiv:1802.07927). Of n updates of which f may be Byzantine, n >= 4f + 3, Krum chooses theta = n - 2f one by one, each
among those that are left; of every coordinate the beta = theta - 2f chosen values nearest to their median are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..parameters import Checked
from ..weights import Array
from .base import State, View, check_enough
from .distances import robustly, squared_distances
from .krum import NumByzantine
from .order_statistics import by_order


@dataclass(frozen=True)
class Bulyan(Checked):
    """Of updates that Krum chose, the mean of the values next to the median (El Mhamdi et al. 2018, arXiv:1802.07927).

    Scaling factors are ignored. Tensors that no distance looks at are the median of all updates.
    """

    num_byzantine: NumByzantine

    weighted: ClassVar[bool] = False

    @property
    def min_updates(self) -> int:
        """n >= 4f + 3."""
        return 4 * self.num_byzantine + 3

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. An update whose factor is 0 counts too."""
        check_enough(self, views)
        chosen = one_by_one(squared_distances(views), self.num_byzantine)
        kept = len(chosen) - 2 * self.num_byzantine

        def combine(models: list[list[Array]], made: list[Array]) -> None:
            among = [models[i] for i in chosen]
            by_order(among, 0, len(among), lambda rows: mean_around_median(rows, kept), made)

        return robustly(views, combine, out), state


def one_by_one(distances: Array, num_byzantine: int) -> list[int]:
    """Indices of the n - 2f updates that Krum takes one after the other; (updates, updates) squared distances.

    A score is the sum of the m - f - 2 smallest distances among the m updates that are left. The last ones are judged
    by one neighbour or none, so that scores are often equal: then the smallest sum of all distances among them goes
    first, then the first in the order of the learners' names.
    """
    count = len(distances)
    others = distances[~np.eye(count, dtype=bool)].reshape(count, count - 1)  # nobody is its own neighbour
    names = np.arange(count - 1) + (np.arange(count - 1) >= np.arange(count)[:, None])  # whose distance it is
    order = np.argsort(others, axis=1, kind="stable")
    nearest, ordered = np.take_along_axis(names, order, axis=1), np.take_along_axis(others, order, axis=1)
    left, chosen = np.ones(count, bool), list[int]()
    while len(chosen) < count - 2 * num_byzantine:
        neighbours = count - len(chosen) - num_byzantine - 2
        among = left[nearest]
        sums = np.where(among, ordered, 0).sum(axis=1)
        scores = np.where(among & (np.cumsum(among, axis=1) <= neighbours), ordered, 0).sum(axis=1)
        candidates = np.flatnonzero(left)
        chosen.append(int(candidates[np.lexsort((sums[candidates], scores[candidates]))[0]]))
        left[chosen[-1]] = False
    return chosen


def mean_around_median(ordered: Sequence[Array], kept: int) -> Array:
    """Per coordinate, the mean of the `kept` values nearest to the median, in float64; rows in ascending order.

    These are neighbours in the order. Of two values equally near, of which one is wanted, the smaller one is kept. The
    mean is the median plus the mean difference from it, so that what all agree on stays.
    """
    count = len(ordered)
    spare = count - kept
    table = np.empty((count, ordered[0].size))
    for row, values in zip(table, ordered, strict=True):
        np.copyto(row, values, casting="unsafe")
    low, high = table[(count - 1) // 2], table[count // 2]
    median = low / 2 + high / 2 if count % 2 == 0 else low.copy()  # halves: their sum cannot overflow
    table -= median
    gone = table[kept:] < -table[:spare]  # the value i is farther than the value i + kept

    def keep_nearest() -> None:
        table[:spare][gone] = 0
        table[kept:][~gone] = 0

    keep_nearest()
    mean: Array = median + table.sum(axis=0) / kept
    if not (wide := np.isfinite(mean)).all():  # differences of the largest float64 overflowed
        for row, values in zip(table, ordered, strict=True):
            np.copyto(row, values, casting="unsafe")
        keep_nearest()
        mean = np.where(wide, mean, (table / kept).sum(axis=0))
    return mean
