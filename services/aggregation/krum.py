"""Krum and Multi-Krum: the update, or the updates, with the nearest neighbours (Blanchard et al. 2017).

"Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017 (arXiv:1703.02757). Of n updates
of which f may be Byzantine, n >= 2f + 3, an update's score is the sum of its n - f - 2 smallest squared distances to
others, over the trainable floating tensors. Equal scores go in the order of the learners' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..weights import Array, copy
from .base import State, View
from .distances import squared_distances
from .fedavg import mean
from .parameters import check_enough, check_whole


@dataclass(frozen=True)
class Krum:
    """The update of the smallest score, as it is. Scaling factors are ignored."""

    num_byzantine: int

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        check_whole("num_byzantine", self.num_byzantine, 0)

    @property
    def min_updates(self) -> int:
        """n >= 2f + 3."""
        return 2 * self.num_byzantine + 3

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. An update whose factor is 0 counts too."""
        check_enough(self, views)
        return copy(views[by_score(views, self.num_byzantine)[0]].arrays, out), state


@dataclass(frozen=True)
class MultiKrum:
    """The plain mean of the `num_selected` updates of the smallest scores, by default n - f of n.

    Scaling factors are ignored. All tensors of the selected updates enter, also those that distances leave out.
    """

    num_byzantine: int
    num_selected: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        check_whole("num_byzantine", self.num_byzantine, 0)
        if self.num_selected is not None:
            check_whole("num_selected", self.num_selected, 1)

    @property
    def min_updates(self) -> int:
        """n >= 2f + 3 and n >= num_selected."""
        return max(2 * self.num_byzantine + 3, self.num_selected or 0)

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. An update whose factor is 0 counts too."""
        check_enough(self, views)
        wanted = self.num_selected or len(views) - self.num_byzantine
        selected = sorted(by_score(views, self.num_byzantine)[:wanted])
        return mean([views[index].arrays for index in selected], [1.0] * len(selected), out), state


def by_score(views: Sequence[View], num_byzantine: int) -> list[int]:
    """Indices of the updates, the smallest score first."""
    distances = squared_distances(views)
    np.fill_diagonal(distances, np.inf)  # nobody is its own neighbour
    nearest = np.sort(distances, axis=1)[:, : len(views) - num_byzantine - 2]
    return [int(index) for index in np.argsort(nearest.sum(axis=1), kind="stable")]
