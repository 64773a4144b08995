"""GeometricMedian: the model of the least total distance to the updates (Pillutla, Kakade and Harchaoui 2022).

"Robust Aggregation for Federated Learning", IEEE Transactions on Signal Processing 70 (arXiv:1912.13445): the smoothed
Weiszfeld algorithm. From the mean on, each step is the mean weighted by 1 / max(nu, distance to the last one). All
these means are weighted means of the updates, so their distances follow from the updates' scalar products: the models
are read twice, however many steps there are. Fewer than half of the updates may be anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from ..parameters import Checked, number, whole
from ..weights import Array
from .base import State, View, check_enough
from .distances import robustly, scalar_products
from .fedavg import mean

STANDS = 1e-9  # relative change of every weight below which the steps end


@dataclass(frozen=True)
class GeometricMedian(Checked):
    """The point with the smallest sum of distances to the updates (Pillutla et al. 2022, arXiv:1912.13445).

    Every update counts the same: scaling factors are ignored.

    The paper takes few steps, because there each costs a round of messages. Here a step costs next to nothing, and a
    single far update would hold a few steps near itself: so they go on until the weights stand still, `iterations` at
    most. Distances run over trainable floating tensors; the other tensors are the median of all updates.
    """

    weighted: ClassVar[bool] = False

    iterations: Annotated[int, whole(1, meaning="of Weiszfeld's algorithm at most")] = 1000
    nu: Annotated[float, number(above=0, meaning="distances below it count as it")] = 1e-6

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state. An update whose factor is 0 counts too."""
        check_enough(self, views)
        weights = weiszfeld(scalar_products(views), self.iterations, self.nu)
        kept = {i: weight for i, weight in enumerate(weights.tolist()) if weight > 0}
        factors = list(kept.values())
        return robustly(views, lambda models, made: mean([models[i] for i in kept], factors, made), out), state


def weiszfeld(products: Array, iterations: int, nu: float) -> Array:
    """Weights of the updates, (updates,), whose sum is about 1, from their scalar products, (updates, updates).

    An update whose square overflows is infinitely far: its weight is 0, unless all are. The weights are rounded to
    float32, so that the order in which products are added up does not show.
    """
    squares = np.diagonal(products)
    near = np.isfinite(squares)
    if not near.any():
        return np.full(len(squares), 1 / len(squares))
    products, squares = products[np.ix_(near, near)], squares[near]
    weights = np.full(len(squares), 1 / len(squares))
    for _ in range(iterations):
        along = products @ weights
        distances = np.sqrt(np.maximum(weights @ along - 2 * along + squares, 0))
        inverse = 1 / np.maximum(distances, nu)
        last, weights = weights, inverse / inverse.sum()
        if np.all(np.abs(weights - last) <= STANDS * weights):
            break
    found = np.zeros(len(near))
    found[near] = weights.astype(np.float32)
    return found
