"""FedBuff: buffered asynchronous aggregation (Nguyen et al. 2022, arXiv:2106.06639).

Once K updates have come, from whomever: W <- W + η·(1/K)·Σ s(t_k)·(w_k - W_k), where W_k is the model that w_k was
trained from and t_k the community models made since. Sums are float64, in the order of the learners' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from ..errors import AggregationFailed
from ..parameters import number, whole
from ..weights import Array, Block, blocks, each, empty_like, fit_dtype, gather, scatter
from .base import Arrivals, State, View
from .staleness import Fading


@dataclass(frozen=True)
class FedBuff(Fading):
    """Once so many updates have come, a step along their mean (Nguyen et al. 2022, arXiv:2106.06639).

    Scaling factors are ignored. `buffer_size` 10 and s(t) = 1/√(1 + t) are the paper's.
    """

    buffer_size: Annotated[int, whole(1, meaning="updates that make a community model")] = 10
    server_learning_rate: Annotated[float, number(above=0, meaning="η, the length of the step")] = 1.0

    elementwise: ClassVar[bool] = True
    rounds: ClassVar[bool] = False

    @property
    def arrivals(self) -> Arrivals:
        """So many at a time."""
        return Arrivals(self.buffer_size)

    def aggregate(
        self,
        views: Sequence[View],
        factors: Sequence[float],
        state: State | None = None,
        out: Sequence[Array] | None = None,
    ) -> tuple[list[Array], State | None]:
        """See Aggregator.aggregate; keeps no state."""
        if not views:
            raise AggregationFailed("the buffer is empty")
        current = views[0].current
        made = empty_like(current) if out is None else list(out)
        steps = [self.server_learning_rate * self.weight(view.staleness) / len(views) for view in views]

        def move(block: Block) -> None:
            total, new, old = (np.empty(block.size) for _ in range(3))
            gather(current, block, total)
            for view, step in zip(views, steps, strict=True):
                gather(view.arrays, block, new)
                gather(view.parent, block, old)
                new -= old
                new *= step
                total += new
            fit_dtype(total, made[block.first].dtype)
            scatter(total, block, made)

        each(blocks(made), lambda: move)
        return made, state
