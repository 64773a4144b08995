"""FedAvgM: the community model has momentum (Hsu, Qi and Brown 2019).

"Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification" (arXiv:1909.06335).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..aggregation import State, check_decay, check_positive
from ..weights import Array
from .moments import move


@dataclass(frozen=True)
class FedAvgM:
    """m = momentum * m + Delta, from 0; W + learning_rate * m. With momentum 0 and learning rate 1: the aggregate."""

    learning_rate: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that cannot be."""
        check_positive("learning_rate", self.learning_rate)
        check_decay("momentum", self.momentum)

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
