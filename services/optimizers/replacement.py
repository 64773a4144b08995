"""`None`: the aggregate is the next community model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..aggregation import State
from ..weights import Array


@dataclass(frozen=True)
class Replace:
    """The aggregate is the next community model."""

    def step(
        self, model: Sequence[Array], aggregate: list[Array], trainable: Sequence[bool], state: State | None
    ) -> tuple[list[Array], State | None]:
        """See ServerOptimizer.step."""
        return aggregate, state
