"""FedRec, federated recency: the mean of every learner's newest update, kept up to date commit by commit.

For the asynchronous protocol of MetisFL (Stripelis et al. 2023, arXiv:2311.00334). A commit of learner k with update w
and factor p changes the sum S and its weight z: S += p·w and z += p, and when k committed before, its last p·w and p
are taken out again. W = S/z. Sums are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import AggregationFailed
from ..weights import Array, Block, blocks, copy, each, empty_like, fit_dtype, gather, holds, scatter
from .base import Arrivals, State, View

UNIT = 2.0**-63  # of the sums: a power of two changes no digit, and 1,024 of the largest factors do not overflow


@dataclass(frozen=True)
class FedRec:
    """State: `sum`, a list of float64 arrays of the tensors' shapes, and `weight`, the sum of the factors in it."""

    rounds: ClassVar[bool] = False
    arrivals: ClassVar[Arrivals] = Arrivals()
    keeps_previous: ClassVar[bool] = True

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate. Without a state the views are all that counts, else they are commits."""
        if not views:
            raise AggregationFailed("there is no commit")
        before = None if state is None else state["sum"]
        sums = [np.empty(array.shape) for array in views[0].arrays]
        weight = 0.0 if state is None else float(state["weight"])
        for view, factor in zip(views, factors, strict=True):
            weight += factor - (0.0 if view.previous is None else view.previous_factor)
        if weight <= 0:
            raise AggregationFailed("no update has a scaling factor above 0: there is nothing to average")
        made = empty_like(views[0].arrays) if out is None else list(out)

        def commit(block: Block) -> None:
            total, term = np.zeros(block.size), np.empty(block.size)
            if before is not None:
                gather(before, block, total)
            for view, factor in zip(views, factors, strict=True):
                gather(view.arrays, block, term)
                term *= factor * UNIT
                total += term
                if view.previous is not None:
                    gather(view.previous, block, term)
                    term *= view.previous_factor * UNIT
                    total -= term
            if not holds(np.float64, total):
                raise AggregationFailed("the sum of the learners' newest updates overflows")
            scatter(total, block, sums)
            total /= weight * UNIT
            fit_dtype(total, made[block.first].dtype)
            scatter(total, block, made)

        each(blocks(made), lambda: commit)
        if state is None and len(views) == 1:
            made = copy(views[0].arrays, out)  # to the bit
        return made, {"sum": sums, "weight": weight}
