"""FedAvgM: the community model has momentum (Hsu, Qi and Brown 2019).

"Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification" (arXiv:1909.06335).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from ..aggregation import State
from ..parameters import Checked, number
from ..weights import Array
from .moments import move


@dataclass(frozen=True)
class FedAvgM(Checked):
    """Momentum: m = momentum * m + Delta, then W + learning_rate * m (Hsu et al. 2019, arXiv:1909.06335).

    m is 0 at first. With momentum 0 and learning rate 1: the aggregate.
    """

    learning_rate: Annotated[float, number(above=0, meaning="η, how far the model moves by m")] = 1.0
    momentum: Annotated[float, number(0, below=1, meaning="share of m that is left a round later")] = 0.9

    def step(
        self, model: Sequence[Array], aggregate: list[Array], trainable: Sequence[bool], state: State | None
    ) -> tuple[list[Array], State | None]:
        """See ServerOptimizer.step. State: a moment `m`."""

        def change(delta: Array, moments: Mapping[str, Array]) -> Array:
            m = moments["m"]
            m *= self.momentum
            m += delta
            return m * self.learning_rate

        return move(model, aggregate, trainable, state, {"m": 0.0}, change)
