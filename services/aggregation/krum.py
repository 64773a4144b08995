"""Krum and Multi-Krum: the update, or the updates, with the nearest neighbours (Blanchard et al. 2017).

"Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017 (arXiv:1703.02757). Of n updates
of which f may be Byzantine, n >= 2f + 3, an update's score is the sum of its n - f - 2 smallest squared distances to
others, over the trainable floating tensors. Equal scores go in the order of the learners' names. Tensors that no
distance looks at are the median of all updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from ..parameters import Checked, whole
from ..weights import Array, copy
from .base import State, View, check_enough
from .distances import robustly, squared_distances
from .fedavg import mean

NumByzantine = Annotated[int, whole(0, meaning="f, how many updates may lie")]


@dataclass(frozen=True)
class Krum(Checked):
    """The one update that is nearest to its n - f - 2 nearest others (Blanchard et al. 2017, arXiv:1703.02757).

    Its weights are taken as they are. Scaling factors are ignored.
    """

    num_byzantine: NumByzantine

    weighted: ClassVar[bool] = False

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
        chosen = by_score(views, self.num_byzantine)[0]
        return robustly(views, lambda models, made: copy(models[chosen], made), out), state


@dataclass(frozen=True)
class MultiKrum(Checked):
    """The plain mean of the updates that are best by Krum's score (Blanchard et al. 2017, arXiv:1703.02757).

    Scaling factors are ignored.
    """

    num_byzantine: NumByzantine
    num_selected: Annotated[int | None, whole(1, meaning="how many are averaged; unset: n - f of n")] = None

    weighted: ClassVar[bool] = False

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
        equal = [1.0] * len(selected)
        return robustly(views, lambda models, made: mean([models[i] for i in selected], equal, made), out), state


def by_score(views: Sequence[View], num_byzantine: int) -> list[int]:
    """Indices of the updates, the smallest score first."""
    distances = squared_distances(views)
    np.fill_diagonal(distances, np.inf)  # nobody is its own neighbour
    nearest = np.sort(distances, axis=1)[:, : len(views) - num_byzantine - 2]
    return [int(index) for index in np.argsort(nearest.sum(axis=1), kind="stable")]
